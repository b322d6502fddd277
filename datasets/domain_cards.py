"""One card per dataset of several domains, as the protocol `lodo` leaves them out one by one.

Source: facebookresearch/DomainBed, domainbed/datasets.py and scripts/download.py, for folders, domains and addresses;
numbers of images as its paper has them (Gulrajani and Lopez-Paz, ICLR 2021). Digits-DG: Zhou et al., AAAI 2020.
"""
from __future__ import annotations

from dataclasses import dataclass, field

from .cards import Archive

DOMAINBED = "https://github.com/facebookresearch/DomainBed"


def _drive(number: str) -> str:
    return f"https://drive.usercontent.google.com/download?id={number}&export=download&confirm=t"


@dataclass(frozen=True)
class DomainCard:
    """Facts of one dataset of domains.

    Attributes:
        name: registered name. folder: under DATASET.ROOT, as DomainBed has it. classes, images: counts, of all domains.
        domains: {name: names of its folder}, in DomainBed's order, which numbers them for its splits.
        places: folders under DATASET.ROOT that may hold the domains' folders; names match in any letter case.
        rename: {folder of a class: class name}. archives: what can be fetched into `folder` without a login.
        by_hand: what a person has to do where nothing can be fetched; ends with a full stop. home: where to read of it.
    """

    name: str
    folder: str
    classes: int
    images: int
    domains: dict[str, tuple[str, ...]]
    places: tuple[str, ...]
    template: str = "a photo of a {}."
    rename: dict[str, str] = field(default_factory=dict)
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""
    home: str = DOMAINBED


_OFFICE = {"art": ("art",), "clipart": ("clipart",), "product": ("product",),
           "real_world": ("real world", "real_world", "realworld")}

CARDS = {card.name: card for card in (
    DomainCard("PACSDomains", "PACS", 7, 9991,
               {name: (name,) for name in ("art_painting", "cartoon", "photo", "sketch")},
               ("PACS", "PACS/kfold", "pacs", "pacs/images"),
               archives=(Archive(_drive("1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd"),
                                 ("art_painting", "cartoon", "photo", "sketch"), inside="kfold"),)),
    DomainCard("VLCSDomains", "VLCS", 5, 10729,
               {"caltech101": ("caltech101", "caltech"), "labelme": ("labelme",), "sun09": ("sun09", "sun"),
                "voc2007": ("voc2007", "pascal")}, ("VLCS",),
               rename={"0": "bird", "1": "car", "2": "chair", "3": "dog", "4": "person"},
               archives=(Archive(_drive("1skwblH1_okBwxWxmRsp9_qi15hyPpxg8"),
                                 ("Caltech101", "LabelMe", "SUN09", "VOC2007"), inside="VLCS"),)),
    DomainCard("OfficeHomeDomains", "office_home", 65, 15588, _OFFICE,
               ("office_home", "office_home/OfficeHomeDataset_10072016", "OfficeHomeDataset_10072016",
                "office_home_dg"),
               archives=(Archive(_drive("1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC"),
                                 ("Art", "Clipart", "Product", "Real World"), inside="OfficeHomeDataset_10072016"),)),
    DomainCard("TerraIncognita", "terra_incognita", 10, 24788,
               {name: (name,) for name in ("location_100", "location_38", "location_43", "location_46")},
               ("terra_incognita",),
               by_hand="It is a part of Caltech Camera Traps (https://lila.science/datasets/caltech-camera-traps, 6 GB "
                       f"of small images): {DOMAINBED}, domainbed/scripts/download.py, download_terra_incognita, "
                       "fetches it and sorts it into location_<n>/<class>/. Take a version of June 2024 or later, as "
                       "the address has changed; what it gives today has 24,330 images."),
    DomainCard("DigitsDGDomains", "digits_dg", 10, 24000,
               {name: (name,) for name in ("mnist", "mnist_m", "svhn", "syn")}, ("digits_dg",),
               template="a photo of the digit {}.",
               archives=(Archive(_drive("15V7EsHfCcfbKgsDmzQKj_DfXt_XYp_P7"), ("mnist", "mnist_m", "svhn", "syn"),
                                 inside="digits_dg"),)),
)}
