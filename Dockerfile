# syntax=docker/dockerfile:1
# Berth's image, for those who have Docker: docker build --tag REPOSITORY:TAG .
#
# NOTE: this file has not been built yet; the project's own machines have no Docker. `make demo` makes its image without
# it (e2e/images/build), from the same program.

FROM rust:1.95-bookworm AS build
WORKDIR /berth
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/berth/target \
    cargo build --release --locked --bin berth && \
    install -D target/release/berth /out/usr/bin/berth && \
    ldd target/release/berth | grep --only-matching '/[^ ]*' | xargs cp --dereference --parents --target-directory=/out && \
    cp --dereference --parents --target-directory=/out /etc/ssl/certs/ca-certificates.crt && \
    mkdir -p -m 1777 /out/tmp && \
    echo 'nonroot:x:65532:65532::/:/none' >/out/etc/passwd && echo 'nonroot:x:65532:' >/out/etc/group

# No shell, no package manager: the program, its libraries, the certificate authorities, and the user 65532.
FROM scratch
COPY --from=build /out /
USER 65532:65532
ENTRYPOINT ["/usr/bin/berth"]
