#!/usr/bin/env bash
# Build the container images of marketfeed's components.
#
#   scripts/images.sh [--help] [worker|consumer|operator|simulator]...     all by default
#
#   DOCKER=docker              client; version 23 and later needs the buildx plugin
#   BASE_IMAGE=python:3.13-slim, BUILD_IMAGE=$BASE_IMAGE     images of the runtime stage and the build stage
#   IMAGE_PREFIX=              prefix of the names, such as registry.example.com/team/
#   IMAGE_TAG=                 tag [version in pyproject.toml]
#   BUILD_NETWORK=             network of the build's steps, such as host
#
# For a mirror of the package index or a custom CA, set PIP_CONFIG_FILE, UV_CONFIG_FILE and SSL_CERT_FILE: they are
# passed to the build as secrets and are not stored in any layer.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi

docker=${DOCKER:-docker}
tag=${IMAGE_TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -n 1)}
options=(--build-arg "VERSION=$tag" --build-arg "REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")
for name in BASE_IMAGE BUILD_IMAGE; do
    [ -z "${!name:-}" ] || options+=(--build-arg "$name=${!name}")
done
[ -z "${BUILD_NETWORK:-}" ] || options+=(--network "$BUILD_NETWORK")
for secret in pip.conf=PIP_CONFIG_FILE uv.toml=UV_CONFIG_FILE ca.pem=SSL_CERT_FILE; do
    file=${secret#*=}
    file=${!file:-}
    [ -z "$file" ] || [ ! -f "$file" ] || options+=(--secret "id=${secret%=*},src=$file")
done

declare -A folders=([worker]=workers [consumer]=consumers [operator]=operator [simulator]=simulator)
for name in "${@:-worker consumer operator simulator}"; do
    for component in $name; do
        if [ -z "${folders[$component]:-}" ]; then
            echo "unknown component: $component; allowed: worker, consumer, operator, simulator" >&2
            exit 2
        fi
        image=${IMAGE_PREFIX:-}marketfeed-$component:$tag
        echo "$image: building"
        DOCKER_BUILDKIT=1 "$docker" build --quiet --file "${folders[$component]}/Dockerfile" --tag "$image" \
            "${options[@]}" . >/dev/null
    done
done
"$docker" image ls --filter "reference=${IMAGE_PREFIX:-}marketfeed-*:$tag" --format '{{.Repository}}:{{.Tag}} {{.Size}}'
