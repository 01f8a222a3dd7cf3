#!/usr/bin/env bash
# Builds and tests the Android demo without a phone. Called by "make android" and so on.
#
#   build.sh           compile, test on the JVM, make the APK and the screenshots
#   build.sh soak      the long soak and mutation tests, and the latency table
#   build.sh arm64     the packaged bundles in TFLite's ARM64 library under qemu
#   build.sh one-file  the programs of examples/one_file, each in its language
set -euo pipefail
cd "$(dirname "$0")"

need() {
  local missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" > /dev/null || missing+=("${pair#*=}")
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    echo "Missing system packages. Install them with:" >&2
    echo "  sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
}

maven=(mvn --batch-mode --no-transfer-progress)
arm64_packages=(aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu
  qemu-aarch64-static=qemu-user-static)
jvm_packages=(python3=python3 javac=openjdk-17-jdk-headless mvn=maven gcc=gcc
  aapt2=aapt apksigner=apksigner)

case "${1:-}" in
  "")
    need "${jvm_packages[@]}"
    "${maven[@]}" test
    python3 headless/make_apk.py
    echo "Screenshots: android_demo/app/target/screenshots/"
    ;;
  soak)
    need "${jvm_packages[@]}"
    "${maven[@]}" test --projects headless,engine \
      -Dtest=SoakTest,MutationTest,LatencyTest -Dsurefire.failIfNoSpecifiedTests=false \
      -Depnet.soak.images=100000 -Depnet.soak.opens=1000 -Depnet.mutations=2000 \
      -Depnet.latency.rounds=5
    ;;
  arm64)
    need "${jvm_packages[@]}" "${arm64_packages[@]}"
    "${maven[@]}" --quiet generate-sources --projects headless
    python3 headless/arm64/check_arm64.py
    ;;
  one-file)
    need "${jvm_packages[@]}" "${arm64_packages[@]}" npm=npm chromium=chromium
    "${maven[@]}" --quiet compile --projects headless,one_file
    python3 ../examples/one_file/check.py
    ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
