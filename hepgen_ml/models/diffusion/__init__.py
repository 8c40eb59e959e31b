"""Denoising diffusion (DDPM); ``ddpm-NAME`` has the network NAME as its noise network."""

from hepgen_ml.models.diffusion.settings import DiffusionConfig
from hepgen_ml.models.flow.settings import LGATrConfig
from hepgen_ml.models.registry import register_lazily

_PLACE = "hepgen_ml.models.diffusion.ddpm:Diffusion"

for _name in ("ddpm", "ddpm-mlp", "ddpm-transformer"):
    register_lazily(_name, _PLACE, {"ddpm": DiffusionConfig})
for _name in ("ddpm-gatr", "ddpm-lgatr"):
    register_lazily(_name, _PLACE, {"ddpm": DiffusionConfig, "lgatr": LGATrConfig})
