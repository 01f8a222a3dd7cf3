#!/usr/bin/env bash
# Builds and tests the Android demo without a phone. Called by "make android" and so on.
#
#   build.sh           compile, test on the JVM, make the APK and the screenshots
#   build.sh soak      the long soak and mutation tests, and the latency table
#   build.sh arm64     the packaged bundles in TFLite's ARM64 library under qemu
#   build.sh one-file  the programs of examples/one_file, each in its language
#   build.sh latency   the latency table, also in engine/target/latency.json
#   build.sh clock BUNDLE...  policies for multiply-adds and for milliseconds, by the clock,
#                      on the test_images beside them (benchmarks/clock.py --bundles): their
#                      benefit in points, also in engine/target/clock.json
set -euo pipefail
bundles=()
[ $# -lt 2 ] || mapfile -t bundles < <(realpath -- "${@:2}")
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
engine_tests() {
  "${maven[@]}" test --projects headless,engine -Dsurefire.failIfNoSpecifiedTests=false "$@"
}

case "${1:-}" in
  "")
    need "${jvm_packages[@]}"
    "${maven[@]}" test
    python3 headless/make_apk.py
    echo "Screenshots: android_demo/app/target/screenshots/"
    ;;
  soak)
    need "${jvm_packages[@]}"
    engine_tests -Dtest=SoakTest,MutationTest,LatencyTest \
      -Depnet.soak.images=100000 -Depnet.soak.opens=1000 -Depnet.mutations=2000 \
      -Depnet.latency.rounds=5
    ;;
  latency)
    need "${jvm_packages[@]}"
    engine_tests -Dtest=LatencyTest -Depnet.latency.rounds=5
    ;;
  clock)
    need "${jvm_packages[@]}"
    engine_tests -Dtest=ClockTest -Depnet.latency.rounds=5 \
      -Depnet.clock.bundles="$(IFS=:; echo "${bundles[*]}")"
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
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
