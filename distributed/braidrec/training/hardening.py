"""The configured adversary and mirror gradient as objects."""

from braidrec.config.run import OptimizerConfig, RunConfig, TrainingConfig
from braidrec.training.adversary import Adversary
from braidrec.training.mirror import MirrorGradient


def build_adversary(config: TrainingConfig) -> Adversary | None:
    """What moves the rows that the model reads; None: nothing does."""
    wanted = config.adversarial
    if wanted is None:
        return None
    return Adversary(target=wanted.target, epsilon=wanted.epsilon, weight=wanted.weight, start_epoch=wanted.start_epoch)


def build_mirror(config: OptimizerConfig) -> MirrorGradient | None:
    """What leads updates both ways; None: nothing does."""
    wanted = config.mirror_gradient
    return None if wanted is None else MirrorGradient(down=wanted.down, up=wanted.up, every=wanted.every)


def moves_features(config: RunConfig) -> bool:
    """Whether an adversary moves the features of the items."""
    return config.training.adversarial is not None and config.training.adversarial.target == "features"
