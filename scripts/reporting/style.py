"""The label and the colour of each optimizer, the same in every table and figure."""

import colorsys
import math
import zlib
from typing import NamedTuple


class Style(NamedTuple):
    label: str
    colour: str  # hex


# The first six colours are Okabe and Ito's, which colour-blind readers can distinguish; orange and
# sky blue are darker than theirs. Every colour has a contrast of 3 or more with white.
STYLES = {
    "lion": Style("Lion", "#000000"),
    "sign_sgd": Style("sign-SGD", "#B87D00"),
    "simba": Style("Simba", "#1E93C4"),
    "simba_m": Style("Simba + m", "#009E73"),
    "simba_eq1": Style("Simba + (1)", "#D55E00"),
    "simba_c_eq_m": Style("Simba + (c = m)", "#CC79A7"),
    "simba_eq4": Style("Simba by eq. 4", "#7755CC"),
    "simba_window": Style("Simba, window", "#6F4E37"),
    "simba_leaky": Style("Simba, leaky", "#117733"),
    "ternary_lion": Style("Ternary Lion", "#999933"),
    "ternary_lion_byte": Style("Ternary Lion EF, one byte", "#CC3311"),
    "ternary_lion_ef": Style("Ternary Lion EF, two bytes", "#AA4499"),
    "lion_8bit": Style("8-bit Lion", "#777777"),
    "ternary_lion_byte_lasting": Style("Ternary Lion EF, one byte, lasting", "#A0522D"),
    "ternary_lion_byte_fine": Style("Ternary Lion EF, one byte, fine", "#882255"),
    "ternary_lion_byte_balanced": Style("Ternary Lion EF, one byte, balanced", "#E0457B"),
    "ternary_lion_carry": Style("Ternary Lion, carry, one byte", "#0E7C7B"),
    "ternary_lion_ef_lasting": Style("Ternary Lion EF, two bytes, lasting", "#2B3FA0"),
    "lion_8bit_lasting": Style("8-bit Lion, lasting", "#5B8C1A"),
    "adam": Style("Adam", "#3B7D23"),
    "adamw": Style("AdamW", "#3B7D23"),
    "sgd": Style("SGD", "#9A8F00"),
}
OTHERS = ("#4477AA", "#EE6677", "#228833", "#9A8F2A", "#2F9FBF", "#AA3377", "#8C8C8C")


def style_of(optimizer: str) -> Style:
    """The style of an optimizer.

    An optimizer that is not in ``STYLES`` is labelled by its name. A hash of the name selects one
    of seven colours, so the colour is always the same.
    """
    if optimizer in STYLES:
        return STYLES[optimizer]
    colour = OTHERS[zlib.crc32(optimizer.encode()) % len(OTHERS)]
    return Style(optimizer.replace("_", " "), colour)


def on_dark(colour: str) -> str:
    """The same colour for a dark page: dark hues become lighter, greys are inverted."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    light = 1 - light if saturation < 0.05 else max(light, 0.6)
    parts = colorsys.hls_to_rgb(hue, light, saturation)
    return "#" + "".join(f"{round(255 * part):02X}" for part in parts)


def label_of(optimizer: str, swept: str = "") -> str:
    """The label of a variant: the optimizer and its swept values, such as ``Lion, lr 3e-4``."""
    return f"{style_of(optimizer).label}, {swept}" if swept else style_of(optimizer).label


def short(value: object) -> str:
    """A value in short notation, such as 3e-4 for 0.0003."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:g}" if value == float(f"{value:g}") else repr(value)
    text = next(t for t in (f"{value:.{digits}e}" for digits in range(17)) if float(t) == value)
    return text.replace("e-0", "e-").replace("e+0", "e+")
