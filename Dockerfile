# The same binary as `make build`, in a slim image without a toolchain, run by a user without rights.
FROM rust:1.95-slim-bookworm AS build
# jemalloc is built from its sources: a C compiler and make.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /standin
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY tests/simulation tests/simulation
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/standin/target \
    cargo build --release --locked --bin standin \
    && cp target/release/standin /usr/local/bin/standin

FROM debian:bookworm-slim
# The roots of trust for `rediss://` backends.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin standin
COPY --from=build /usr/local/bin/standin /usr/local/bin/standin
COPY config/standin.toml /etc/standin/standin.toml
USER 10001:10001
# The client listener, and the control port.
EXPOSE 6380 9180
# SIGTERM drains: clients are served until the last has gone or drain.timeout has passed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s --retries=3 CMD ["standin", "healthcheck"]
ENTRYPOINT ["standin"]
CMD ["run", "--config", "/etc/standin/standin.toml"]
