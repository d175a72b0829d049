"""What an experiment is: a frozen record, from which its name, its network and its result file follow."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
WORK = Path("work_dirs/evidence")
TIMESTEP = 200  # of the single pass of a diffusion model
OTHER_TIMESTEPS = (1, 100, 400, 999)  # that are tried, too


@dataclass(frozen=True)
class Budget:
    """The training that all systems of a table get. Sizes are for a CPU: minutes a run, not the papers' days."""

    pixel_steps: int = 850  # with the MSE alone
    full_steps: int = 150  # with all three losses, as SRGAN and ESRGAN start adversarial training from a PSNR network
    batch_size: int = 8
    loss_images: int = 4  # of a batch, that the perceptual and the adversarial loss see
    lr: float = 1e-3  # of Adam (0.9, 0.99); reached in warmup_steps, then half a cosine to 0
    warmup_steps: int = 50
    discriminator_lr: float = 5e-4
    perceptual_layer: str = "14"  # of torchvision's VGG16, conv3_3; the paper's 21 sees 8x8 positions of 64x64 pixels
    # HED's VGG16 has large features: after bicubic enlargement this term is half of the MSE, which has to dominate.
    perceptual_weight: float = 3e-6
    gan_weight: float = 1e-3  # the paper's 1e-2 is several times the MSE on flat pictures
    ema_half_life: float = 20  # steps

    @property
    def steps(self) -> int:
        return self.pixel_steps + self.full_steps

    @property
    def images_seen(self) -> int:
        return self.steps * self.batch_size


FIRST = Budget(pixel_steps=200, full_steps=60, lr=2e-3, warmup_steps=20)  # of the first protocol, see CLAIMS.md
SECOND = Budget()


@dataclass(frozen=True)
class Experiment:
    """One run. Two with equal names are the same run, and share a result file."""

    system: str  # of experiments.systems
    domain: str = "cartoons"
    scale: int = 8
    pairs: int = 0  # of the training part; 0: all
    seed: int = 0
    bank: str = ""  # of experiments.banks; empty: the domain's own
    budget: Budget = field(default_factory=Budget)
    variant: str = ""  # names another budget

    @property
    def name(self) -> str:
        """
        >>> Experiment("glean").name, Experiment("glean", "emoji", 16, 200, 2, "cartoons").name
        ('cartoons-x8-glean-seed0', 'emoji-x16-glean-bank_cartoons-200pairs-seed2')
        """
        parts = [self.domain, f"x{self.scale}", self.system]
        parts += [f"bank_{self.bank}"] * bool(self.bank) + [f"{self.pairs}pairs"] * bool(self.pairs)
        return "-".join([*parts, *[self.variant] * bool(self.variant), f"seed{self.seed}"])

    @property
    def result_file(self) -> Path:
        return RESULTS / f"{self.name}.json"

    @property
    def work_dir(self) -> Path:
        return WORK / self.name

    def config(self) -> dict:
        return asdict(self)
