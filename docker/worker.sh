#!/usr/bin/env bash
# ComfyUI and the worker in one container. ComfyUI is started again whenever it ends; the worker waits for it meanwhile.
# The container ends with the worker, which on SIGTERM lets its job finish or hands it back (HEARTH_GRACE_S).
set -u
port=${COMFYUI_PORT:-8188}
export COMFYUI_URL=http://127.0.0.1:$port
pid_file=$(mktemp)
# What the worker does when ComfyUI hangs: it is killed here and started again below.
export COMFYUI_RESTART="kill -9 \$(cat $pid_file)"

comfyui() {
    pid=
    trap 'kill $pid 2>/dev/null; wait $pid; exit 0' TERM
    while true; do
        $COMFYUI --listen 127.0.0.1 --port "$port" &
        pid=$!
        echo "$pid" > "$pid_file"
        wait "$pid"
        echo "ComfyUI ended with code $?; it is started again" >&2
        sleep 1
    done
}

comfyui &
comfyui=$!
python -m worker &
worker=$!
trap 'kill -TERM $worker' TERM INT
# wait ends early for each signal that the trap takes
while kill -0 $worker 2>/dev/null; do
    wait $worker
done
wait $worker
code=$?
kill -TERM $comfyui
wait $comfyui
rm -f "$pid_file"
exit "$code"
