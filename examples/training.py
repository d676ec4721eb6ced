"""A recurrent layer learns to look things up, then decodes in constant memory: python examples/training.py [FOLDER]."""

import sys
from pathlib import Path

import torch
from torch import nn

from mmattn.attention import DeltaNet
from mmattn.media.image import write_png
from mmattn.viz.curves import plot_curve

output = Path(sys.argv[1] if len(sys.argv) > 1 else "example_output")
output.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
KEYS, PAIRS, STEPS = 16, 4, 150


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns texts "key value key value ... key?" and the value of the key that is asked for."""
    keys = torch.rand(size, KEYS).argsort(dim=-1)[:, :PAIRS]
    values = torch.randint(KEYS, 2 * KEYS, (size, PAIRS))
    asked = torch.randint(PAIRS, (size, 1))
    text = torch.stack([keys, values], dim=-1).flatten(1)
    return torch.cat([text, keys.gather(1, asked)], dim=1), values.gather(1, asked)[:, 0]


embed, mixer, head = nn.Embedding(2 * KEYS, 64), DeltaNet(64, num_heads=2, use_short_conv=True), nn.Linear(64, 2 * KEYS)
optimizer = torch.optim.AdamW([*embed.parameters(), *mixer.parameters(), *head.parameters()], lr=5e-3)
losses = []
for _ in range(STEPS):
    text, answer = batch(64)
    out, _ = mixer(embed(text))  # all tokens at once, in chunks
    loss = nn.functional.cross_entropy(head(out[:, -1]), answer)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

text, answer = batch(500)
state = None
with torch.no_grad():
    for token in text.unbind(dim=1):  # the same layer, token by token: all it keeps is the state
        out, state = mixer(embed(token)[:, None], state)
right = (head(out[:, -1]).argmax(-1) == answer).float().mean()
print(f"loss {losses[0]:.2f} -> {losses[-1]:.3f}, {right:.0%} of 500 questions answered right")
write_png(output / "loss.png", plot_curve(range(STEPS), losses, xlabel="step", ylabel="loss", ylim=None))
