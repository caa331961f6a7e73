"""Receptive fields by changing a pixel; dense descriptors against the network patch by patch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stpm.runtime.errors import CheckpointError
from stpm.train.methods.stad.patch_networks import ARCHITECTURES, PatchNetwork, check_patch_sizes

SIZES = sorted(ARCHITECTURES)


@pytest.fixture(params=SIZES, scope="module")
def network(request: pytest.FixtureRequest) -> PatchNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PatchNetwork(request.param).requires_grad_(False).eval()


def random_image(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, 3, size, size, generator=generator)


def test_no_pixel_beyond_the_patch_changes_the_descriptor(network: PatchNetwork) -> None:
    p = network.patch_size
    image = random_image(p + 2)
    before = network(image)[0, :, p // 2 + 1, p // 2 + 1]
    changed = image + 5
    changed[..., 1:-1, 1:-1] = image[..., 1:-1, 1:-1]
    after = network(changed)[0, :, p // 2 + 1, p // 2 + 1]
    assert torch.equal(before, after)
    torch.testing.assert_close(before, network.patches(image[..., 1:-1, 1:-1])[0])


def test_one_pixel_changes_the_descriptors_of_p_by_p_pixels(network: PatchNetwork) -> None:
    p = network.patch_size
    image = random_image(p + 4)  # in whose middle no mirrored copy of the pixel is in reach
    middle = image.shape[2] // 2
    changed = image.clone()
    changed[..., middle, middle] += 5
    difference = (network(changed) - network(image)).abs().amax(dim=1)[0]
    for axis in (0, 1):
        reached = difference.amax(dim=axis) > 1e-5
        assert reached.nonzero().flatten().tolist() == list(
            range(middle - p // 2, middle + p // 2 + 1)
        )


def test_dense_descriptors_are_those_of_every_crop(network: PatchNetwork) -> None:
    p = network.patch_size
    image = random_image(p + 3)
    crops = F.unfold(image, p)[0].T.reshape(-1, 3, p, p)
    inside = slice(p // 2, p // 2 + 4)
    dense = network(image)[0, :, inside, inside].flatten(1).T
    assert len(crops) == len(dense) == 16
    torch.testing.assert_close(dense, network.patches(crops), rtol=0, atol=1e-5)


def test_pixels_at_the_border_have_the_descriptor_of_their_mirrored_patch(
    network: PatchNetwork,
) -> None:
    p = network.patch_size
    image = random_image(p // 2 + 4)
    padded = F.pad(image, (p // 2,) * 4, mode="reflect")
    patches = F.unfold(padded, p)[0].T.reshape(-1, 3, p, p)
    dense = network(image)[0].flatten(1).T
    assert len(patches) == len(dense) == image.shape[2] * image.shape[3]
    chosen = torch.linspace(0, len(dense) - 1, 16).long()  # two corners among them
    torch.testing.assert_close(dense[chosen], network.patches(patches[chosen]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("corner", [(0, 0), (5, 2), (30, 39)])
def test_a_lattice_is_part_of_the_dense_descriptors(
    network: PatchNetwork, corner: tuple[int, int]
) -> None:
    image = random_image(40)
    row, column = (at % network.stride for at in corner)
    expected = network(image)[..., row :: network.stride, column :: network.stride]
    torch.testing.assert_close(network.lattice(image, corner), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((), "got patch sizes , expected one or more of 17,33,65"),
        ((17, 17), "each once"),
        ((16,), "got patch sizes 16"),
        ((65,), "got an input size of 32x64 for patches of 65 pixels"),
    ],
)
def test_refuses_what_it_cannot_build(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_patch_sizes(sizes, (32, 64))
