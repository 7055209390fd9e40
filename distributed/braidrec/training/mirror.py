"""Mirror Gradient: now and then a step down is followed by a smaller step up."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MirrorGradient:
    """Flat minima by updates in both directions (Zhong et al., Mirror Gradient, WWW 2024).

    In every β-th step of an epoch, the first included, with g the gradient on the same batch,

        θ' = θ − step(α₁ g(θ)),    θ'' = θ' − step(−α₂ g(θ')),

    where "step" is what the optimizer makes of a gradient; in all others θ' = θ − step(g(θ)). By plain gradient descent
    this is the gradient at θ times α₁ − α₂ and a term that makes the gradient's norm smaller. An optimizer that divides
    by the gradient's size, as Adam does, keeps both directions in its averages.

    Attributes:
        down: α₁.
        up: α₂, below α₁.
        every: β.
    """

    down: float
    up: float
    every: int

    def __post_init__(self) -> None:
        if not 0 < self.up < self.down:
            raise ValueError(f"up={self.up} must be above 0 and below down={self.down}: the way has to lead downwards")
        if self.every < 1:
            raise ValueError(f"every={self.every} must be at least 1")

    def factors(self, step: int) -> tuple[float, ...]:
        """What the gradients of the updates of a step (from 0, in its epoch) are multiplied by."""
        return (self.down, -self.up) if step % self.every == 0 else (1.0,)
