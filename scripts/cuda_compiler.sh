# nvcc where none is installed: from PyPI's packages of NVIDIA, into .cuda/ of the checkout; sourced by ./check. Compiles; a
# GPU, its driver and libcublasLt are needed to run what it makes.
cuda_version=13.0.88
cuda_packages=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85)
cuda_headers=nvidia-cublas==13.0.2.14

#   require_cuda_compiler      sets CUDACXX, if it is not set, to an nvcc
require_cuda_compiler() {
    local folder=$PWD/.cuda/$cuda_version
    [ -z "${CUDACXX:-}" ] || return 0
    if command -v nvcc >/dev/null 2>&1; then
        CUDACXX=$(command -v nvcc)
        export CUDACXX
        return 0
    fi
    if [ ! -e "$folder/ready" ]; then
        rm -rf "$folder" && mkdir -p "$folder/wheels" || return 1
        echo "Fetching nvcc $cuda_version from PyPI (0.5 GB, most of it cuBLAS, of which only the headers are kept)"
        python3 -m venv "$folder/venv" &&
            "$folder/venv/bin/pip" download -q --no-deps -d "$folder/wheels" "${cuda_packages[@]}" "$cuda_headers" || return 1
        "$folder/venv/bin/python" - "$folder" <<'PYTHON' || return 1
import pathlib
import sys
import zipfile

folder = pathlib.Path(sys.argv[1])
for wheel in sorted((folder / "wheels").glob("*.whl")):
    archive = zipfile.ZipFile(wheel)
    only_headers = wheel.name.startswith("nvidia_cublas")
    for name in archive.namelist():
        if name.startswith("nvidia/cu13/include/" if only_headers else "nvidia/cu13/"):
            archive.extract(name, folder)
            if "/bin/" in name:
                (folder / name).chmod(0o755)
PYTHON
        rm -rf "$folder/wheels" "$folder/venv"
        ln -s lib "$folder/nvidia/cu13/lib64"  # where CMake looks
        touch "$folder/ready"
    fi
    export CUDACXX=$folder/nvidia/cu13/bin/nvcc
}
