#!/usr/bin/env bash
# All that needs a GPU, on a machine with torch and triton alone, in three calls.
#
#   on_gpu.sh first OUT     correct, then fast: operators. Under eight minutes
#   on_gpu.sh second OUT    layers and whole models. Under four minutes
#   on_gpu.sh third OUT     the trainings on CamVid. Under ten minutes; the
#                           same call goes on after those that are done
#
# OUT gets a folder of tables and a log for each step. Each step has its share
# of the time and is ended when that is over; what it had written stays. If
# the first step finds something wrong by more than rounding, nothing is timed.
#
# Variables:
#   PYTHON     the interpreter (python3)
#   WORKERS    processes on the GPU (14)
#   WHEELS     after the first call, a folder of wheels of the hosts, where they
#              are not installed. Made where there is a network by
#                MMCV_WITH_OPS=0 pip wheel --no-deps -w WHEELS \
#                    --no-binary onedl-mmcv onedl-mmcv onedl-mmengine \
#                    onedl-mmsegmentation addict ftfy platformdirs \
#                    prettytable termcolor wcwidth yapf
#              (numpy, OpenCV, matplotlib, SciPy, Pillow, rich, PyYAML, tqdm
#              and packaging are further needs of the hosts)
#   DATA       for the second call, a folder with images/train and masks/train
#              (PNG of class indices), for a short training; none without.
#              For the third, CamVid as `compare --camvid` takes it
#   JOBS       of the third call, trainings at a time (24: all. With 16 cores
#              and an H100 they share, 24 took 0.13 s a step each)
#   ANYWAY=1   times even if something is wrong: each table compares what it
#              times, and leaves out what differs
#   DRY=1      on the CPU, in Triton's interpreter, at tiny sizes
set -u
call=${1:-} out=${2:-}
if [[ ! $call =~ ^(first|second|third)$ || -z $out ]]; then
    sed -n '3,7s/^# *//p' "$0" >&2
    exit 2
fi
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
wheels=${WHEELS:+$(realpath "$WHEELS")} data=${DATA:+$(realpath "$DATA")}
cd "$(dirname "$0")/../.." || exit 1
python=${PYTHON:-python3} workers=${WORKERS:-14}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
tools=tools/benchmark
sizes=(2x97x97 1x128x256 1x256x512)
pictures=(2x512x512 2x769x769) trained=4x512x512 steps=100
# What else these files test is the same on any machine.
tests=(-v -k 'cuda or test_kernels')
common=() few=() some=() few_trainings=() slow=1 narrow=bfloat16
if [[ ${DRY:-} ]]; then
    export TRITON_INTERPRET=1
    workers=2 slow=4 sizes=(1x2x3) pictures=(1x33x33)
    trained=2x33x33 steps=2
    common=(--device cpu --channels 64)
    narrow=float16  # the interpreter is wrong in bfloat16
    few=(--only axial_attention linear_attention axial linear
         --dtypes float16)
    some=(--only CrissCrossAttention criss_cross_layer)
    tests=(-k 'declaration or says or left_out')
    few_trainings=(--iters 2 --methods fcn --seeds 1 --device cpu)
fi

# step SECONDS NAME COMMAND ...: the command within the time, with a log.
step() {
    local seconds=$(($1 * slow)) name=$2 start=$SECONDS status
    shift 2
    printf '\n== %s\n' "$name"
    timeout "$seconds" "$@" 2>&1 | tee "$out/$name.log"
    status=${PIPESTATUS[0]}
    printf '== %s: status %d, %d of %d s\n' \
        "$name" "$status" $((SECONDS - start)) "$seconds" |
        tee -a "$out/steps.log"
    return "$status"
}

table() {
    local seconds=$1 name=$2
    shift 2
    step "$seconds" "$name" "$python" $tools/run.py "${common[@]}" \
        --sizes "${sizes[@]}" --no-plots --out "$out/$name" \
        --seconds $((seconds * slow * 3 / 4)) --repeat 20 --budget 1 \
        --limit 1 "$@"
}

battery() {
    local parallel=()
    "$python" -c 'import xdist' 2>/dev/null && parallel=(-n "$workers")
    step "$1" battery "$python" -m pytest -q -p no:cacheprovider \
        --disable-warnings "${parallel[@]}" "${tests[@]}" "${@:2}"
}

check() {
    local seconds=$1
    shift
    step "$seconds" check "$python" $tools/check.py "${common[@]}" \
        --workers "$workers" --seconds $((seconds * slow * 3 / 4)) \
        --out "$out/check" "$@"
    case $? in
    0 | 3 | 124) ;; # 3: beyond a bound, yet by no more than rounding
    *) [[ ${ANYWAY:-} ]] || { echo 'Wrong: nothing is timed.' && exit 1; } ;;
    esac
}

tiles() {
    local seconds=$1 name=$2
    shift 2
    step "$seconds" "$name" "$python" $tools/sweep.py "${common[@]}" \
        --sizes "${sizes[@]}" --workers "$workers" --out "$out/$name" \
        --seconds $((seconds * slow / 2)) "$@"
}

models() {
    local seconds=$1 name=$2
    shift 2
    step "$seconds" "$name" "$python" $tools/models.py "${common[@]}" \
        --repeat 12 --budget 4 --out "$out/$name" "$@"
}

first() {
    step 15 machine "$python" -c \
        "import sys; sys.path.append('$tools'); import torch, machine
device = 'cuda' if torch.cuda.is_available() else 'cpu'
print(machine.describe(device))"
    check 90 --sizes "${sizes[@]}" "${few[@]}"
    table 75 criss_cross_bfloat16 --dtype bfloat16 --cases criss_cross axial
    table 70 others_bfloat16 --dtype bfloat16 --peers sdpa natten --cases \
        channelized_axial interlaced_sparse efficient_1_head \
        efficient_8_heads linear linear_softplus channel_linear non_local
    table 55 float32 --peers sdpa backends --cases criss_cross axial \
        interlaced_sparse efficient_8_heads linear channel_linear non_local
    tiles 50 "sweep_$narrow" --dtype "$narrow"
    table 25 float16 --dtype float16 --peers sdpa --cases \
        criss_cross axial interlaced_sparse efficient_8_heads linear
    tiles 40 sweep_float32
    battery 55 tests/test_ops/test_kernels.py tests/test_ops/test_operators.py
}

hosts() {
    [[ $wheels ]] || return 0
    site=$(mktemp -d) && trap 'rm -rf "$site"' EXIT
    step 20 wheels "$python" -m pip install -q --no-index --no-deps \
        --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl || exit
    # Once here, or each process does it.
    "$python" -m compileall -q -j 0 "$site" mmseg_attn
    export PYTHONPATH=$site:$PYTHONPATH
}

second() {
    local ccnet=ccnet_r50-d8_4xb2-40k_cityscapes-512x1024
    hosts
    check 40 --sizes "${sizes[@]}" --only \
        ChannelLinearAttention ChannelizedAxialAttention CrissCrossAttention \
        EfficientAttention InterlacedSparseAttention LinearAttention \
        SqueezeAttention criss_cross_layer interlaced_layer "${some[@]}"
    table 35 layers_autocast --amp --dtype bfloat16 --peers --cases \
        criss_cross_layer interlaced_layer
    models 35 models_nchw --amp --sizes "${pictures[@]}"
    models 35 models_nhwc --amp --sizes "${pictures[@]}" --channels-last
    if [[ $data ]]; then
        models 45 training --amp float16 --train "$steps" --data "$data" \
            --sizes "$trained" --configs "$ccnet"
    else
        echo 'No training: $DATA names no folder of pictures.'
    fi
    battery 40 tests/test_layers tests/test_models/test_every_head.py
}

# Processes that share a GPU take turns unless its multi-process service runs.
share_gpu() {
    local stop='echo quit | nvidia-cuda-mps-control'
    export CUDA_MPS_PIPE_DIRECTORY=$out/mps CUDA_MPS_LOG_DIRECTORY=$out/mps
    mkdir -p "$out/mps"
    if ! nvidia-cuda-mps-control -d; then
        unset CUDA_MPS_PIPE_DIRECTORY
    elif timeout 30 "$python" -c 'import torch; torch.ones(2, device="cuda")'
    then
        trap "$stop"'; rm -rf "${site:-}"' EXIT
    else
        eval "$stop"
        unset CUDA_MPS_PIPE_DIRECTORY
    fi
}

third() {
    [[ $data ]] || { echo 'No training: $DATA names no CamVid.' && exit 2; }
    export OMP_NUM_THREADS=1
    hosts
    # Else half of a step goes into reading pictures.
    step 20 decoded "$python" $tools/decoded.py "$data" "$out/data" || exit
    [[ ${DRY:-} ]] || share_gpu
    step 560 camvid "$python" -m mmseg_attn compare --camvid "$out/data" \
        --work-dir "$out/camvid" --jobs "${JOBS:-24}" "${few_trainings[@]}"
}

$call
printf '\nIn %d s:\n' $SECONDS && cat "$out/steps.log"
