"""Installs the engine (`dassl`), frozen CLIP (`clip`) and the command; all else stays in the checkout.

The lists below are the one place of the requirements; scripts/_packages.py compares an environment with them.
"""
from pathlib import Path

# Lower bounds have the known security fixes (docs/security.md); they were installed and tested together on Python 3.10,
# the newest releases on 3.13.
REQUIRES = [
    "torch>=2.10",
    "torchvision>=0.25",
    "open_clip_torch>=2.24",
    "filelock>=3.30",
    "numpy>=1.26",
    "pillow>=12.1.1",
    "yacs>=0.1.8",
    "pyyaml>=6.0",
    "tabulate>=0.9",
    "pandas>=2.2",
    "tqdm>=4.66.3",
    "scipy>=1.11",
    "scikit-learn>=1.5",
    "matplotlib>=3.8",
    "jinja2>=3.1.6",
    "markupsafe>=2.1",
    "safetensors>=0.4.5",
    "tensorboard>=2.15",
]
SERVE = ["starlette>=1.3.1", "uvicorn>=0.30"]
ONNX = ["onnx>=1.19", "onnxscript>=0.6.2", "onnxruntime>=1.22"]
CLUSTER = ["submitit>=1.5.4"]
EXTRAS = {
    "test": ["pytest>=8.0", "pytest-xdist>=3.5", "hypothesis>=6.90", "ruff>=0.17,<0.18", *SERVE, *ONNX, *CLUSTER],
    "serve": SERVE,                                 # tools/predict.py --serve
    "onnx": ONNX,                                   # tools/export.py
    "share": ["huggingface_hub>=0.24"],             # tools/share.py with the hub
    "cluster": CLUSTER,                             # tools/sweep.py --launcher
    "wandb": ["wandb>=0.16"],                       # TRAIN.TRACKERS wandb
    "mlflow": ["mlflow>=2.9"],                      # TRAIN.TRACKERS mlflow
}

if __name__ == "__main__":
    from setuptools import find_packages, setup

    setup(
        name="dassl-prompts",
        version="0.1.0",
        description="A Dassl-style engine with registered trainers for CLIP prompt learning",
        long_description=(Path(__file__).resolve().parent / "README.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        license="MIT",
        python_requires=">=3.10",
        packages=find_packages(include=["dassl", "dassl.*", "clip", "clip.*"]),
        package_data={"clip": ["tiny.*"]},
        py_modules=["dassl_prompts"],
        entry_points={"console_scripts": ["dassl-prompts=dassl_prompts:main"]},
        install_requires=REQUIRES,
        extras_require=EXTRAS,
    )
