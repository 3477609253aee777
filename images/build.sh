#!/bin/sh
# Builds and pushes the images and prints the digests to put into the chart's values and the FineTuneRuntimes.
# usage: images/build.sh REGISTRY   (for example registry.example.com/tuneyard); needs Docker with buildx
set -eu
registry="${1:-}"
[ -n "$registry" ] || { echo "usage: make images REGISTRY=registry.example.com/tuneyard" >&2; exit 2; }
docker info >/dev/null 2>&1 || { echo "images: no Docker daemon answers; images are built where one does" >&2; exit 2; }
cd "$(dirname "$0")/.."
# The tag of a release is its version, as charts and environments name it; any other commit has its own name.
tag="$(git describe --exact-match --match 'v[0-9]*' 2>/dev/null || git rev-parse --short=12 HEAD)"
tag="${tag#v}"
[ -z "$(git status --porcelain)" ] || { echo "images: commit first: the tag $tag must mean what is in git" >&2; exit 1; }
meta="$(mktemp -d)"
trap 'rm -rf "$meta"' EXIT

build() { # key dockerfile name:tag [more arguments...]
    key="$1" file="$2" image="$registry/$3"
    shift 3
    docker buildx build --platform linux/amd64 --push --provenance=true --sbom=true \
        --metadata-file "$meta/$key" --tag "$image" --file "$file" "$@" .
    digest="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$meta/$key")"
    echo "${image%:*}@$digest" | tee "$meta/$key.ref"
}
build operator images/operator/Dockerfile "operator:$tag"
build cuda images/trainer/Dockerfile "trainer:$tag-cuda" --tag "$registry/trainer:$tag" --build-arg TORCH=cuda
build cpu images/trainer/Dockerfile "trainer:$tag-cpu" --build-arg TORCH=cpu
build server images/server/Dockerfile "server:$tag" --build-arg TRAINER_IMAGE="$(cat "$meta/cpu.ref")"
