# syntax=docker/dockerfile:1
# Berth's image, for those who have Docker: docker build --tag REPOSITORY:TAG .
#
# NOTE: this file has not been built yet; the project's own machines have no Docker. `make demo` makes its image without
# it (e2e/images/build), from the same program.

FROM rust:1.95-bookworm AS build
WORKDIR /berth
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/berth/target \
    cargo build --release --locked --bin berth && install -D target/release/berth /out/berth

# No shell, no package manager: libc, the certificate authorities, and the user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/berth /usr/bin/berth
USER 65532:65532
ENTRYPOINT ["/usr/bin/berth"]
