"""Counts the edits between two texts."""


def edit_distance(first: str, second: str) -> int:
    """Return the Levenshtein distance: an insertion, deletion or substitution costs 1.

    Two integers encode a column of the dynamic-programming table, with one bit per character of
    `first`. Source: Myers, 1999, in the form of Hyyrö, 2003.
    """
    if not first or not second:
        return len(first) + len(second)
    places: dict[str, int] = {}
    for index, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << index
    last, mask, distance = 1 << len(first) - 1, (1 << len(first)) - 1, len(first)
    # Bit i of `up` is set if cell i of the column is larger by 1 than the cell above it. Bit i of
    # `down` is set if cell i is smaller by 1.
    up, down = mask, 0
    for character in second:
        same = places.get(character, 0)
        diagonal = (((same & up) + up) ^ up) | same | down
        right = down | ~(diagonal | up)
        left = up & diagonal
        distance += bool(right & last) - bool(left & last)
        right, left = right << 1 | 1, left << 1
        up = (left | ~(diagonal | right)) & mask
        down = right & diagonal & mask
    return distance
