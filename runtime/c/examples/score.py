"""Score a picture through libstpm with ctypes: score.py libstpm.so bottle.stpm part.png"""

import ctypes
import sys

from PIL import Image as Picture


class Image(ctypes.Structure):
    _fields_ = [
        ("pixels", ctypes.c_char_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("stride", ctypes.c_ssize_t),
        ("format", ctypes.c_int32),
    ]


class Result(ctypes.Structure):
    _fields_ = [
        ("map", ctypes.c_void_p),
        ("map_capacity", ctypes.c_size_t),
        ("regions", ctypes.c_void_p),
        ("region_capacity", ctypes.c_size_t),
        ("region_count", ctypes.c_size_t),
        ("threshold", ctypes.c_double),
        ("score", ctypes.c_float),
        ("is_anomalous", ctypes.c_int32),
        ("rois", ctypes.c_void_p),
        ("roi_capacity", ctypes.c_size_t),
        ("roi_count", ctypes.c_size_t),
    ]


STPM_RGB = 1

library, bundle, path = sys.argv[1:]
stpm = ctypes.CDLL(library)
stpm.stpm_last_error.restype = ctypes.c_char_p
stpm.stpm_last_error.argtypes = [ctypes.c_void_p]
stpm.stpm_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
stpm.stpm_close.argtypes = [ctypes.c_void_p]

detector = ctypes.c_void_p()
picture = Picture.open(path).convert("RGB")
image = Image(picture.tobytes(), picture.height, picture.width, 0, STPM_RGB)
result = Result()
status = stpm.stpm_open(bundle.encode(), None, ctypes.byref(detector))
if status == 0:
    status = stpm.stpm_run(detector, ctypes.byref(image), 1, ctypes.byref(result))
if status != 0:
    sys.exit(stpm.stpm_last_error(detector).decode())
print("ANOMALOUS" if result.is_anomalous else "ok", result.score, result.threshold)
stpm.stpm_close(detector)
