"""The names of the metrics. Imports nothing, so that the report needs no networks."""

# Metric -> whether higher is better
METRICS = {"PSNR": True, "SSIM": True, "LPIPS": False, "Frechet": False, "attributes": True, "LR_PSNR": True}
REGIONS = ("eyes", "mouth", "hair", "skin")  # of a cartoon face, whose PSNR is measured
