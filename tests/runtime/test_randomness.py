import torch

from f2fd_core.runtime.randomness import GLOBAL, Randomness


def test_draws_depend_on_the_numbers_alone():
    def drawn(*numbers):
        random = Randomness.of("cpu", *numbers)
        return torch.rand(4, generator=random.host), torch.rand(4, generator=random.device)

    torch.manual_seed(0)
    first = drawn(1, 2, 3)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    again = drawn(1, 2, 3)
    assert all(map(torch.equal, first, again))
    assert torch.equal(torch.random.get_rng_state(), state)
    for others in ((1, 2, 4), (1, 3, 2), (1, 2)):
        assert not torch.equal(drawn(*others)[0], first[0])


def test_by_default_pytorchs_own_generators_are_used():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3, generator=GLOBAL.host), expected)
