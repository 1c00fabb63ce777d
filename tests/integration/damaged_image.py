"""Damages one image of a data set. The store keeps many images in one object, called a pack."""

from awares_platform.data.dataset import read_manifest
from awares_platform.data.packs import PackPlace, decode_index
from awares_platform.store import ObjectStore


def place_of(store: ObjectStore, name: str, split: str, digest: str) -> PackPlace:
    """Return the pack that holds an image, and the offset and length of the image in the pack."""
    return decode_index(store.get(read_manifest(store, name, split)["images"]))[digest]


def damage_image(store: ObjectStore, name: str, split: str, digest: str) -> PackPlace:
    """Flip one bit of an image in its pack, and return the image's place in the pack."""
    place = place_of(store, name, split, digest)
    pack = bytearray(store.get(place.pack))
    pack[place.offset + place.length // 2] ^= 1
    store.put(place.pack, bytes(pack))
    return place
