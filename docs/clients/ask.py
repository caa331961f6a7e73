"""Asks a served model for its verdict: python ask.py HOST:8001 bottle part.png"""

import sys

import numpy as np
import tritonclient.grpc as triton
from PIL import Image

address, model, path = sys.argv[1:]
pixels = np.asarray(Image.open(path).convert("RGB"))[None]  # uint8 (1,H,W,3)

images = triton.InferInput("images", pixels.shape, "UINT8")
images.set_data_from_numpy(pixels)
names = ("pred_score", "threshold", "is_anomalous")  # also anomaly_map and pixel_threshold
wanted = [triton.InferRequestedOutput(name) for name in names]

server = triton.InferenceServerClient(address)
answer = server.infer(model, [images], outputs=wanted, client_timeout=10)
score, threshold, is_anomalous = (answer.as_numpy(name).item() for name in names)

print("ANOMALOUS" if is_anomalous else "ok", f"{score:.6g}", f"{threshold:.6g}", path)
