"""Installs `dassl`, `clip` and `dassl_prompts` with the command, and configs, datasets, tools and trainers.

The last four are not top-level packages, because `datasets` and `tools` are other people's names too: they become
dassl_prompts/home/, which `dassl_prompts` puts first on sys.path. A checkout is used as it is.

The lists below are the one place of the requirements; scripts/_packages.py compares an environment with them.
"""
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent
HOME = ("configs", "datasets", "tools", "trainers")             # installed inside dassl_prompts/home

# Lower bounds have the known security fixes (docs/security.md); they were installed and tested together on Python 3.10,
# the newest releases on 3.13.
REQUIRES = [
    "torch>=2.10",
    "torchvision>=0.25",
    "open_clip_torch>=2.24",
    "timm>=1.0",                    # comes with open_clip_torch
    "filelock>=3.30",
    "numpy>=1.26",
    "pillow>=12.1.1",
    "yacs>=0.1.8",
    "packaging>=23.0",
    "pyyaml>=6.0",
    "tabulate>=0.9",
    "pandas>=2.2",
    "tqdm>=4.66.3",
    "scipy>=1.11",
    "scikit-learn>=1.5",
    "threadpoolctl>=3.1",           # comes with scikit-learn
    "matplotlib>=3.8",
    "jinja2>=3.1.6",
    "markupsafe>=2.1",
    "safetensors>=0.4.5",
    "tensorboard>=2.15",
]
SERVE = ["starlette>=1.3.1", "uvicorn>=0.30"]
ONNX = ["onnx>=1.19", "onnxscript>=0.6.2", "onnxruntime>=1.22"]
TUNE = ["optuna>=4.0"]
CLUSTER = ["submitit>=1.5.4"]
ROBUST = ["pyautoattack>=0.2"]
EXTRAS = {
    "test": ["pytest>=8.0", "pytest-xdist>=3.5", "hypothesis>=6.90", "ruff>=0.17,<0.18", *SERVE, *ONNX, *CLUSTER,
             *ROBUST, *TUNE, "nbformat>=5.10", "av>=12.0"],
    "video": ["av>=12.0"],                          # clips from video files
    "serve": SERVE,                                 # tools/predict.py --serve
    "onnx": ONNX,                                   # tools/export.py
    "share": ["huggingface_hub>=0.24"],             # tools/share.py with the hub
    "robust": ROBUST,                               # AutoAttack in tools/evaluate.py
    "tune": TUNE,                                   # tools/tune.py
    "cluster": CLUSTER,                             # tools/sweep.py --launcher
    "docs": ["mkdocs-material>=9.5"],               # mkdocs build --strict
    "wandb": ["wandb>=0.16"],                       # TRAIN.TRACKERS wandb
    "mlflow": ["mlflow>=2.9"],                      # TRAIN.TRACKERS mlflow
}



def packages() -> dict[str, str]:
    """Package as it is installed -> its folder here, "/" between parts."""
    found = {}
    for room in ("dassl", "clip", "dassl_prompts", *HOME):
        for folder in (ROOT / room, *sorted((ROOT / room).rglob("*"))):
            path = folder.relative_to(ROOT).as_posix()
            if folder.is_dir() and "__pycache__" not in path and any(file.is_file() for file in folder.iterdir()):
                name = path.replace("/", ".")
                found[f"dassl_prompts.home.{name}" if room in HOME else name] = path
    return found


if __name__ == "__main__":
    from setuptools import setup

    version = re.search(r'__version__ = "(.+?)"', (ROOT / "dassl" / "__init__.py").read_text(encoding="utf-8")).group(1)
    setup(
        name="dassl-prompts",
        version=version,
        description="Train, compare and reuse methods that adapt CLIP; compatible with Dassl and CoOp code",
        long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        license="MIT",
        python_requires=">=3.10",
        packages=list(packages()),
        package_dir=packages(),
        package_data={"": ["*.yaml", "*.txt", "*.json", "*.html", "*.js", "*.css", "*.md", "*.csv", "*.svg", "*.sha256",
                           "tiny.*"]},
        entry_points={"console_scripts": ["dassl-prompts=dassl_prompts.commands:main"]},
        install_requires=REQUIRES,
        extras_require=EXTRAS,
    )
