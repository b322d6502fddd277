# dassl-prompts for a CPU, or with CUDA: docs/docker.md says how to build and run it.
#   docker build -t dassl-prompts .
#   docker build -t dassl-prompts:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

RUN useradd --create-home user && mkdir -p /data /output /cache && chown user /data /output /cache
WORKDIR /app

# Packages first: they change less often than the code, so a rebuild takes them from the cache.
COPY setup.py pyproject.toml README.md ./
RUN pip install --index-url "$TORCH_INDEX" torch torchvision \
    && python -c "from setup import EXTRAS, REQUIRES; print(*REQUIRES, *EXTRAS['serve'], sep='\n')" > requirements.txt \
    && pip install -r requirements.txt

COPY . .
RUN pip install --no-deps -e . && chown -R user /app

USER user
ENV DASSL_PYTHON=/usr/local/bin/python DATA=/data OUTPUT=/output XDG_CACHE_HOME=/cache CLIP_CACHE=/cache/clip
VOLUME ["/data", "/output", "/cache"]
ENTRYPOINT ["dassl-prompts"]
CMD ["--help"]
