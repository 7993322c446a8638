#!/bin/bash
# tests/gpu/run.sh: runs the tests, benchmark, sweep and profile on a machine with a GPU, in at most ten minutes.
#
# Run it in the repository's root, with a Python that has Chainer, CuPy, pytest with xdist, Hypothesis and PyTorch:
# `pip install '.[cuda12x,test]' torch`. If there is a folder .whl, Chainer is installed from its wheel. Results go to
# $OUT, logs to $LOGS.
# `LIMIT=200 BENCH=--quick tests/gpu/run.sh` is a short run, which leaves out steps that do not fit. STEPS names the
# steps to run.
# On a machine without a GPU, `MARK="not gpu"` runs the tests with NumPy in CuPy's place.
set -u
START=$SECONDS LIMIT=${LIMIT:-560} OUT=${OUT:-/tmp/out} PY=${PY:-python3} MARK=${MARK:-gpu}
# A factor on the time limit of each step, for a busy machine.
SCALE=${SCALE:-1}
STEPS=${STEPS:-smoke tests bench sweep ncu} LOGS=${LOGS:-$(mktemp -d)} SITE=${SITE:-$(mktemp -d)}
mkdir -p "$OUT" "$LOGS"
say() { echo "== $((SECONDS - START)) s: $*" | tee -a $LOGS/times.log; }
has() { [[ " $STEPS " == *" $1 "* ]]; }
# run NAME SECONDS COMMAND...: stops the command after SECONDS or at LIMIT; its output goes to a log
run() {
    local name=$1 left=$((LIMIT - (SECONDS - START))); local most=$((left < SCALE * $2 ? left : SCALE * $2)); shift 2
    if ((most < 5)); then say "$name: no time left"; return 1; fi
    timeout -k 5 "$most" "$@" >"$LOGS/$name.log" 2>&1
    local rc=$?
    say "$name: exit $rc, of at most $most s"
    return $rc
}
finish() { cp $LOGS/summary.txt "$OUT/" 2>/dev/null; tar -czf "$OUT/logs.tar.gz" -C "${LOGS%/*}" "${LOGS##*/}"; }
trap finish EXIT

if [ -d .whl ]; then
    $PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" .whl/*.whl || exit 1
fi
export PYTHONPATH=$SITE:$PWD PYTHONUNBUFFERED=1 CHAINER_CUDNN=0
# The tests compare with the NumPy kernel. The Numba kernel would be compiled in every process.
export RMSPROP_GRAVES_CPU_KERNEL=numpy OMP_NUM_THREADS=4
# Installed pytest plugins may warn, and warnings are errors in the tests.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
{ nvidia-smi; nvidia-smi -q -d CLOCK,POWER | head -60; nvcc --version; $PY -V; g++ --version | head -1; nproc; free -g
  $PY -m pip list 2>/dev/null | grep -iE "^(cupy|numpy|numba|torch|triton|chainer|nvidia|cuda|pytest|hypothesis|scipy)"
  $PY -W ignore -m rmsprop_graves --info; } >$LOGS/machine.log 2>&1

# A test that takes longer than faulthandler's seconds prints where it is.
TESTS="$PY -m pytest -p xdist -p no:cacheprovider -q --tb=short --durations=8 -o faulthandler_timeout=$((50 * SCALE))"
if has smoke && ! run smoke 90 $TESTS -m "$MARK" -x tests/gpu/test_kernel.py \
    -k "hundred_steps and defaults or kernel_of_one_parameter"; then
    tail -40 $LOGS/smoke.log
    echo "The first tests of the kernels do not pass, so times would mean nothing."
    exit 1
fi
if has tests; then
    # These tests are not timed, so they run in parallel: most of them in 8 processes, the slow ones in others.
    ALONE="beyond_two or runs_asynchronously"
    run tests 150 $TESTS -m "$MARK" tests/gpu -n "${JOBS:-8}" \
        -k "not ($ALONE or sanitizer or example or network)" &
    run sanitizer 150 $TESTS -m "$MARK" tests/gpu -n 2 -k sanitizer &
    run examples 150 $TESTS -m "$MARK" tests/gpu -n 2 -k example &
    # Chainer's functions use names that CuPy 14 deprecates. The summary counts the warnings.
    run networks 150 $TESTS -m "$MARK" tests/gpu/test_networks.py -W default::DeprecationWarning &
    wait
    run alone 60 $TESTS -m "$MARK" tests/gpu -k "$ALONE"
fi
# Now nothing else runs on the device. The benchmark writes its results after each case.
has bench && run bench 270 $PY -m benchmarks --gpu --output "$OUT" ${BENCH:-}
has sweep && run sweep 150 $PY -m benchmarks --gpu --sweep --output "$OUT" ${BENCH:-}
has ncu && command -v ncu >/dev/null && run ncu 40 ncu --clock-control none --set basic \
    --section MemoryWorkloadAnalysis --section Occupancy --section SchedulerStats --section WarpStateStats \
    -k regex:rmsprop --launch-skip 2 --launch-count 6 $PY -W ignore tests/gpu/launches.py

{
    grep -hE "^(FAILED|ERROR)|^[0-9]+ (passed|failed|skipped|deselected).* in " $LOGS/{smoke,tests,sanitizer,examples,networks,alone}.log
    grep -hE "^ +[0-9]+  " $LOGS/{tests,sanitizer,examples,networks,alone}.log | cut -c1-200
    grep -hoE "DeprecationWarning: .*" $LOGS/networks.log | sort | uniq -c
    grep -h "^Left out" $LOGS/{bench,sweep}.log
    sed -n '/: speed-up, median/,/^## /p' "$OUT/gpu.md" | grep -v '^## '
    sed -n '/: speed-up over/,/^## /p' "$OUT/gpu_sweep.md" | grep -v '^## '
    grep -E "rmsprop_graves.*Context|Duration|DRAM Throughput|Achieved Occupancy|Issue Slots Busy|Registers Per" $LOGS/ncu.log
    cat $LOGS/times.log
} >$LOGS/summary.txt 2>/dev/null
cat $LOGS/summary.txt
