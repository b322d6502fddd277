"""A page on this machine where one drops an image and sees its classes; started by tools/predict.py --serve."""
