from ..domains import OfficeHome  # noqa: F401 - public code imports it from here
