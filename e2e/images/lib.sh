# shellcheck shell=bash
# How the images made here are called, in the one place that knows.

# image_name NAME: the reference by which a pod names the image. Nothing answers at this host: no pull can succeed, so
# pods have imagePullPolicy IfNotPresent or Never.
image_name() { printf 'localhost/berth-e2e/%s:dev' "$1"; }

# image_file NAME: where `e2e/images/build` leaves it in the checkout.
image_file() { printf '%s/.local/images/%s.tar' "$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)" "$1"; }
