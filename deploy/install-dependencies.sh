#!/bin/sh
# Installs what requirements/image.txt locks into /opt/specsem, each file by its hash.
#
# TORCH_INDEX, if it is not empty, is the address of a package index of the operator's own that has torch and
# torchvision without CUDA, in the versions that are locked. Their files differ from those of the lock, so the
# hashes that this index tells are what they are checked by; all else comes as locked, CUDA's libraries not at all.
set -eu

lock=image.txt
uv=/opt/uv/bin/uv
python=/opt/specsem/bin/python
# Certificates of the base image: a company's own authority is added there.
export UV_SYSTEM_CERTS=1 UV_NO_CACHE=1 UV_NO_PROGRESS=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1

python3 -m venv /opt/uv
/opt/uv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes --requirement uv.txt
"$uv" venv --quiet --no-python-downloads --python "$(command -v python3)" /opt/specsem

if [ -z "${TORCH_INDEX:-}" ]; then
  "$uv" pip sync --python "$python" --require-hashes "$lock"
else
  # A requirement is a line that begins with its name; its hashes follow, indented.
  awk '/^[a-z0-9]/ { keep = !/^(torch|torchvision|triton|cuda-[a-z-]+|nvidia-[a-z0-9-]+)==/ } keep' "$lock" >without-torch.txt
  "$uv" pip sync --python "$python" --require-hashes without-torch.txt
  # shellcheck disable=SC2046 # one word for each package
  "$uv" pip install --python "$python" --no-deps --default-index "$TORCH_INDEX" \
    $(awk '/^(torch|torchvision)==/ { print $1 }' "$lock" | sort -u)
fi
"$uv" pip check --python "$python"
