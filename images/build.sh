#!/bin/sh
# Builds and pushes the images and prints the digests to put into the chart's values and the FineTuneRuntimes.
# usage: images/build.sh REGISTRY   (for example registry.example.com/tuneyard); needs Docker with buildx
set -eu
registry="${1:-}"
[ -n "$registry" ] || { echo "usage: make images REGISTRY=registry.example.com/tuneyard" >&2; exit 2; }
docker info >/dev/null 2>&1 || { echo "images: no Docker daemon answers; images are built where one does" >&2; exit 2; }
cd "$(dirname "$0")/.."
tag="$(git rev-parse --short=12 HEAD)"
[ -z "$(git status --porcelain)" ] || { echo "images: commit first: the tag $tag must mean what is in git" >&2; exit 1; }
meta="$(mktemp -d)"
trap 'rm -rf "$meta"' EXIT

build() { # name dockerfile [build arguments...]
    name="$1" file="$2"
    shift 2
    docker buildx build --platform linux/amd64 --push --provenance=true --sbom=true \
        --metadata-file "$meta/$name" --tag "$registry/$name:$tag" --file "$file" "$@" .
    digest="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$meta/$name")"
    echo "$registry/$name@$digest" | tee "$meta/$name.ref"
}
build operator images/operator/Dockerfile
build trainer-cuda images/trainer/Dockerfile --build-arg TORCH=cuda
build trainer-cpu images/trainer/Dockerfile --build-arg TORCH=cpu
build server images/server/Dockerfile --build-arg TRAINER_IMAGE="$(cat "$meta/trainer-cpu.ref")"
