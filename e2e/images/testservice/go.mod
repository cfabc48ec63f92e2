module berth.dev/e2e/images/testservice

go 1.26.0
