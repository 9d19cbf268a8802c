#!/bin/sh
# Fetches the default model set and the demo's pictures into build/models and
# build/people of the repository, by pinned sums. Where all is there and right
# it does nothing and needs no network.
set -eu
cd "$(dirname "$0")/.."

# The manifest of the default set, with the net for poses, is the one place that
# knows the nets, their sums and their package.
manifest=vision/manifests/default+pose.json
models=$(sed -n 's/.*"file": "\([^"]*\)".*/\1/p' "$manifest" | while read -r file; do
	echo "$(grep -A 1 "\"file\": \"$file\"" "$manifest" | sed -n 's/.*"sha256": "\([^"]*\)".*/\1/p')  build/models/$file"
done)
package=$(sed -n 's/.*"npm": "\([^"]*\)", "sha256": "\([^"]*\)", "folder": "package\/\([^"]*\)".*/\1 \2 \3/p' "$manifest")
samples='8ecae4b267b2d3169e06e00c7dee97097aa2a94635d45216f7732a5f4943cb51  build/people/sample1.jpg
7d2b60ae6f13bf30f422e04df87451081a02c83de469056f25afb44b7000c691  build/people/sample2.jpg
8eb081c9efb14370fa94d9feab9e5fbeafd19a627491853a80c2bf67f7ffa936  build/people/sample3.jpg
729efa5923061d40eb4ed5f267a18cc7b8ba6f852bb2757b16d8b7e4937476fc  build/people/sample4.jpg
6d45095ebb182d8f975c0790e0e4eefd86fbb40609cf4b271776d92e12662938  build/people/sample5.jpg
9baad80f9d5e306fb9b8c0913d44445f1e95848df317530efb03d0934c57ba87  build/people/sample6.jpg'
faces='51f524c76aeb4e12f97476978e1f3b0d0276b9db0a159833d10ca242a19cbf50  build/people/gocv-face.jpg
4047a2119ec59b7506fd97aca856f3829f285ef33cc6b8ed5d0f71c4e5cb279d  build/people/gocv-face-detect.jpg'

right() { echo "$1" | sha256sum --check --status 2>/dev/null; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE SHA256-OF-TARBALL FOLDER-IN-IT TARGET SUMS: takes from an npm
# package the files that SUMS names.
fetch() {
	right "$5" && return
	command -v npm >/dev/null || {
		echo "fetch-models: npm is missing; it is needed once, to fetch $1. Get it with: apt-get install npm" >&2
		exit 1
	}
	echo "fetching $1"
	tarball=$(cd "$work" && npm pack --loglevel=error "$1") || {
		echo "fetch-models: npm could not fetch $1: check the network, or npm's registry and proxy settings" >&2
		exit 1
	}
	echo "$2  $work/$tarball" | sha256sum --check --status || {
		echo "fetch-models: $1 does not have the pinned SHA-256 $2: do not use it; ask where this release comes from" >&2
		exit 1
	}
	mkdir -p "$4"
	for file in $(echo "$5" | sed 's:.*/::'); do
		tar xzf "$work/$tarball" -C "$work" "package/$3/$file"
		mv "$work/package/$3/$file" "$4/$file"
		chmod 644 "$4/$file"
	done
	right "$5" || { echo "fetch-models: files of $1 differ from their pinned sums" >&2; exit 1; }
}

# shellcheck disable=SC2086 # three words
set -- $package
fetch "$1" "$2" "$3" build/models "$models"
fetch @vladmandic/face-api@1.7.15 0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031 \
	demo build/people "$samples"

# One more person, on two days, comes with a Go module that the build needs anyway.
right "$faces" || {
	go mod download gocv.io/x/gocv
	images=$(go list -m -f '{{.Dir}}' gocv.io/x/gocv)/images
	mkdir -p build/people
	for name in face face-detect; do
		cp "$images/$name.jpg" "build/people/gocv-$name.jpg"
		chmod 644 "build/people/gocv-$name.jpg"
	done
	right "$faces" || { echo "fetch-models: gocv's face pictures differ from their pinned sums" >&2; exit 1; }
}
