"""What an optimizer is called and drawn like, the same in every table, figure and page."""

import colorsys
import zlib
from typing import NamedTuple


class Style(NamedTuple):
    label: str
    colour: str  # hex


# The first six colours are Okabe and Ito's, safe for the colour-blind.
STYLES = {
    "lion": Style("Lion", "#000000"),
    "sign_sgd": Style("sign-SGD", "#E69F00"),
    "simba": Style("Simba", "#56B4E9"),
    "simba_m": Style("Simba + m", "#009E73"),
    "simba_eq1": Style("Simba + (1)", "#D55E00"),
    "simba_c_eq_m": Style("Simba + (c = m)", "#CC79A7"),
    "simba_eq4": Style("Simba by eq. 4", "#88CCEE"),
    "simba_window": Style("Simba, window", "#332288"),
    "simba_leaky": Style("Simba, leaky", "#117733"),
    "ternary_lion": Style("Ternary Lion", "#999933"),
    "ternary_lion_byte": Style("Ternary Lion EF, one byte", "#CC3311"),
    "ternary_lion_ef": Style("Ternary Lion EF, two bytes", "#AA4499"),
    "lion_8bit": Style("8-bit Lion", "#777777"),
    "adam": Style("Adam", "#0072B2"),
    "adamw": Style("AdamW", "#0072B2"),
    "sgd": Style("SGD", "#F0E442"),
}
OTHERS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")


def style_of(optimizer: str) -> Style:
    """An optimizer without a line above gets its name and one of seven colours, always the same."""
    if optimizer in STYLES:
        return STYLES[optimizer]
    colour = OTHERS[zlib.crc32(optimizer.encode()) % len(OTHERS)]
    return Style(optimizer.replace("_", " "), colour)


def on_dark(colour: str) -> str:
    """The same colour for a dark page: dark hues become lighter, greys turn round."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    light = 1 - light if saturation < 0.05 else max(light, 0.6)
    parts = colorsys.hls_to_rgb(hue, light, saturation)
    return "#" + "".join(f"{round(255 * part):02X}" for part in parts)


def label_of(optimizer: str, swept: str = "") -> str:
    """An optimizer, and what sets its runs apart from others of it: ``Lion, lr 3e-4``."""
    return f"{style_of(optimizer).label}, {swept}" if swept else style_of(optimizer).label


def short(value: object) -> str:
    """3e-4 for 0.0003; other values as they are."""
    if not isinstance(value, float) or value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:g}" if isinstance(value, float) else str(value)
    text = f"{value:.0e}" if value == float(f"{value:.0e}") else f"{value:g}"
    return text.replace("e-0", "e-").replace("e+0", "e+")
