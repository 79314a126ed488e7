# Two images, both without root:
#   docker build --target control -t hearth .              web, tasks, sweeper, deliverer and manage.py
#   docker build --target worker -t hearth-worker .        a GPU worker with its ComfyUI
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --uid 10001 --create-home hearth
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /hearth
RUN python -m venv /opt/venv
# requirements.txt has a section for each image.
COPY requirements.txt constraints.txt ./

FROM base AS worker
ARG COMFYUI_VERSION=0.3.64
ARG COMFYUI_CUDA=12.8
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# git and libgl are what ComfyUI's installer and common custom nodes need.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
# ComfyUI has a virtual environment of its own: its packages and the worker's never meet.
RUN python -m venv /opt/comfyui && /opt/comfyui/bin/pip install comfy-cli==1.23.0 \
    && export PATH=/opt/comfyui/bin:$PATH VIRTUAL_ENV=/opt/comfyui \
    && comfy --skip-prompt tracking disable \
    && comfy --skip-prompt --workspace /comfyui install --version "$COMFYUI_VERSION" \
       --nvidia --cuda-version "$COMFYUI_CUDA" --skip-manager
RUN sed '/^# The worker$/,/^$/!d' requirements.txt > worker.txt && pip install -r worker.txt -c constraints.txt
COPY worker worker
COPY docker/worker.sh /usr/local/bin/
# ComfyUI's input, output, temp, user and models: mount the models into /data/models.
RUN mkdir -p /data/models && chown -R 10001 /data
ENV COMFYUI_DIR=/data COMFYUI="/opt/comfyui/bin/python /comfyui/main.py --base-directory /data"
USER 10001
VOLUME /data
CMD ["worker.sh"]

FROM base AS control
RUN sed '/^# The control plane$/,/^$/!d' requirements.txt > control.txt && pip install -r control.txt -c constraints.txt
COPY manage.py ./
COPY hearth hearth
COPY accounts accounts
COPY storage storage
COPY jobs jobs
COPY worker/__init__.py worker/wire.py worker/guard.py worker/kinds.py worker/paths.py worker/place.py worker/
USER 10001
ENV HOST=0.0.0.0 PORT=8000
EXPOSE 8000
CMD ["python", "-m", "hearth.asgi"]
