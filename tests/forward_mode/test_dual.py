import gc
import warnings

import pytest
import torch
from against_torch import compare, draw, jvp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from cmbench.forward_mode import _layers, _rules, dual
from cmbench.forward_mode.dual import Dual, value_and_derivative
from cmbench.networks import dit, edm2, mlp, unet

pytestmark = pytest.mark.usefixtures("float64")
LABELS = torch.tensor([2, 0, 1])


class Transformer(nn.Module):
    """A block over 6 tokens, conditioned by c, as in DiT."""

    def __init__(self):
        super().__init__()
        self.norm_0, self.norm_1 = nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False)
        self.qkv, self.proj, self.shift = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(1, 16)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(approximate="tanh"), nn.Dropout(0.0), nn.Linear(16, 8))

    def forward(self, x, c, labels=None):
        shift, scale = self.shift(c[:, None])[:, None].chunk(2, dim=-1)
        qkv = self.qkv(self.norm_0(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_1(x) * (1 + scale) + shift)


def perceptron(**settings):
    return mlp.Network(mlp.Config(width=16, **settings), (2,), 3), (3, 2)


def u_net(**settings):
    return unet.Network(unet.Config(width=8, depth=1, **settings), (1, 4, 4), 3), (3, 1, 4, 4)


def transformer(**settings):
    return dit.Network(dit.Config(width=8, depth=1, heads=2, **settings), (1, 4, 4), 3), (3, 1, 4, 4)


def magnitude_preserving(**settings):
    small = {"width": 8, "multipliers": (1, 2), "depth": 1, "attention": (4, 2), "head_channels": 4}
    return edm2.Network(edm2.Config(**small, **settings), (2, 4, 4), 3), (3, 2, 4, 4)


NETWORKS = {
    "mlp": lambda: perceptron(class_conditional=True),
    "mlp_fourier_dropout": lambda: perceptron(embedding="fourier", embedding_scale=0.2, dropout=0.4),
    "unet": lambda: u_net(class_conditional=True, multipliers=(1, 2)),
    "unet_attention": lambda: u_net(attention=(4, 2), heads=2, multipliers=(1, 2), embedding="fourier"),
    "unet_dropout": lambda: u_net(dropout=0.4, attention=(4,)),
    "unet_adn": lambda: u_net(double_norm=True, class_conditional=True),
    "dit": lambda: transformer(class_conditional=True, dropout=0.4),
    "dit_adn": lambda: transformer(double_norm=True, embedding="fourier"),
    "edm2": lambda: magnitude_preserving(class_conditional=True),
    "edm2_adn": lambda: magnitude_preserving(double_norm=True, embedding="positional", dropout=0.4),
    "transformer": lambda: (Transformer(), (3, 6, 8)),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    """A network with every weight drawn, and the shape of its x."""
    torch.manual_seed(0)
    net, shape = NETWORKS[request.param]()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net, shape


def trained(net):
    return [p for p in net.parameters() if p.requires_grad]


def test_networks_agree_with_torch(network):
    """Value and all gradients of a plain pass, torch.func.jvp's derivative, under one seed with dropout."""
    net, shape = network
    with sdpa_kernel(SDPBackend.MATH):
        x, c = draw([shape, (3,)], 1)
        compare(net, [x, c, LABELS], [*draw([shape, (3,)], 2), None], trained(net))


def test_derivative_is_the_limit_of_differences(network):
    net, shape = network
    (x, c), (t_x, t_c) = draw([shape, (3,)], 1), draw([shape, (3,)], 2)

    def at(h):
        torch.manual_seed(3)
        with torch.no_grad():
            return net(x + h * t_x, c + h * t_c, LABELS)

    torch.manual_seed(3)
    value, derivative = value_and_derivative(net, (x, c, LABELS), (t_x, t_c, None))
    assert torch.equal(value, at(0))
    differences = (at(1e-5) - at(-1e-5)) / 2e-5
    torch.testing.assert_close(derivative, differences, rtol=1e-6, atol=1e-6)


def test_evaluation_mode_draws_no_dropout():
    net, shape = NETWORKS["mlp_fourier_dropout"]()
    net.eval()
    state = torch.get_rng_state()
    x, c = torch.ones(shape), torch.ones(3)
    value, _ = value_and_derivative(net, (x, c), (x, c))
    assert torch.equal(value, net(x, c))
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_do_not_see_the_tangent():
    net, shape = NETWORKS["unet_attention"]()
    x, c = draw([shape, (3,)], 1)
    gradients = []
    for size in (1, 1000):
        value, derivative = value_and_derivative(net, (x, c, LABELS), (size * x, size * c, None))
        assert derivative.grad_fn is None
        gradients.append(torch.autograd.grad((value * derivative / size).sum(), list(net.parameters())))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_that_of_the_arguments(dtype):
    net, shape = NETWORKS["unet"]()
    net.to(dtype)
    x, c = torch.ones(shape, dtype=dtype), torch.ones(3, dtype=dtype)
    assert {y.dtype for y in value_and_derivative(net, (x, c), (x, c))} == {dtype}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["mlp", "unet_attention", "transformer", "edm2"])
def test_autocast_is_that_of_a_plain_pass(name, device):
    """On a GPU the normalisations go to float32 and back, on a CPU they stay."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    torch.manual_seed(0)
    net, shape = NETWORKS[name]()
    net.to(device, torch.float32)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, c, t_x, t_c = (t.to(device, torch.float32) for t in draw([shape, (3,), shape, (3,)], 1))
    primals, tangents = (x, c, LABELS.to(device)), (t_x, t_c, None)
    _, exact = value_and_derivative(net, primals, tangents)
    with torch.autocast(device, torch.bfloat16):
        plain = net(*primals)
    with torch.autocast(device, torch.bfloat16):
        value, derivative = value_and_derivative(net, primals, tangents)
    assert value.dtype == derivative.dtype == plain.dtype
    assert torch.equal(value, plain)
    assert (derivative - exact).norm() < 0.05 * exact.norm()
    gradients = [torch.autograd.grad(y.float().square().sum(), trained(net)[-4:]) for y in (value, plain)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("function", [torch.add, torch.mul, torch.div, lambda x, y: torch.cat([x, y])])
def test_mixed_precision_goes_by_the_value(function):
    """A normalisation may come in float32 next to bfloat16 layers."""
    x, y = torch.ones(2, 2, dtype=torch.float32), torch.ones(2, 2, dtype=torch.bfloat16)
    for tangents in ((x, y), (x, None), (None, y)):
        value, derivative = value_and_derivative(function, (x, y), tangents)
        assert value.dtype == derivative.dtype == torch.float32


# Memory


def saved_bytes(run):
    """Return how many bytes a pass keeps for backward, each memory once."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = run()
    del result
    return sum(kept.values())


def test_nothing_more_is_kept_for_backward(network):
    net, shape = network
    x, c = draw([shape, (3,)], 1)
    torch.manual_seed(0)
    plain = saved_bytes(lambda: net(x, c, LABELS))
    torch.manual_seed(0)
    assert saved_bytes(lambda: value_and_derivative(net, (x, c, LABELS), (x, c, None))) == plain > 0


@pytest.mark.long
def test_tangents_are_freed_on_the_way():
    """At each of 20 layers there is the tangent of its input alone, and nothing in the end."""
    net = nn.Sequential(*[nn.Sequential(nn.Linear(7, 7), nn.SiLU()) for _ in range(20)])
    alive = []

    def count(*_):
        alive.append(sum(type(x) is Dual for x in gc.get_objects()))

    for layer in net:
        layer.register_forward_hook(count)
    x = torch.ones(2, 7)
    value, _ = value_and_derivative(net, (x,), (x,))
    count()
    assert max(alive) <= 3
    assert alive[-1] == 0
    assert value.grad_fn is not None


def test_checkpointed_modules_keep_their_gradients():
    """Backward runs the block again, on the same duals."""
    net, x = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 4)), torch.ones(3, 4)
    results = []
    for block in (net, lambda x: checkpoint(net, x, use_reentrant=False)):
        torch.manual_seed(0)
        value, derivative = value_and_derivative(lambda x, block=block: block(x.sin()).exp(), (x,), (x,))
        results.append([value, derivative, *torch.autograd.grad(value.sum(), list(net.parameters()))])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_attention_by_blocks_of_queries_is_attention(monkeypatch):
    monkeypatch.setattr(_layers, "_QUERIES", 2)
    seen = torch.tensor([[True, False], [True, True], [False, True], [True, True], [True, False]])
    with sdpa_kernel(SDPBackend.MATH):
        for mask in (None, seen, seen[:1]):
            tensors = [draw([(3, 5, 4), (3, 2, 4), (3, 2, 4)], seed) for seed in (0, 1)]
            compare(lambda q, k, v, mask=mask: F.scaled_dot_product_attention(q, k, v, mask), *tensors)


def test_attention_keeps_no_more_than_torchs_fused_one():
    q, t = (x.requires_grad_() for x in draw([(1, 1, 300, 4)], 0) + draw([(1, 1, 300, 4)], 1))
    attention = F.scaled_dot_product_attention
    plain = saved_bytes(lambda: attention(q, q, q))
    assert saved_bytes(lambda: value_and_derivative(attention, (q, q, q), (t, t, t))) == plain < 300 * 300 * 8
    _, derivative = value_and_derivative(attention, (q, q, q), (t, t, t))
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(derivative, jvp(attention, (q, q, q), (t, t, t)), rtol=1e-10, atol=1e-10)


# What a pass meets on the way


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_norms_of_what_lies_otherwise_in_memory(memory_format):
    (x,), (t,) = draw([(2, 3, 4, 8)], 0), draw([(2, 3, 4, 8)], 1)
    x, t = x.contiguous(memory_format=memory_format), t.contiguous()
    for norm in (nn.GroupNorm(2, 8), nn.LayerNorm(3)):
        nn.init.normal_(norm.weight)

        def strided(x, norm=norm):
            return norm(x.transpose(1, 3))

        pairs = [
            value_and_derivative(strided, (x,), (t,)),
            value_and_derivative(norm, (x.transpose(1, 3).contiguous(),), (t.transpose(1, 3).contiguous(),)),
        ]
        torch.testing.assert_close(*pairs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(pairs[0][0], strided(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", _rules.LINEAR_GETTERS)
def test_getters(name):
    compare(lambda x: getattr(torch.view_as_complex(x) if name in ("real", "imag") else x, name), *square_pair())


def square_pair():
    return draw([(2, 2)], 0), draw([(2, 2)], 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.detach() * x + x.data,
        lambda x: x * (x > 0) + x[x.argmax(dim=1)] * len(x),
        lambda x: x.sign() + x.floor() + x * x.round(),
        lambda x: x * x.sum().item() if x.sum() > -100 else x,
        lambda x: x.new_zeros(x.shape) + torch.zeros_like(x) + x.numel() * x.view(x.size(0), -1),
        lambda x: sum(row * (1 + i) for i, row in enumerate(x)),
        lambda x: torch.stack([*x.unbind(1)]) + 1 / x.exp() - (3 - x) + 2 * x @ x,
        lambda x: torch.ones(2, 2),
        lambda x: x,
    ],
)
def test_constants_operators_and_iteration(function):
    (x,), (t,) = square_pair()
    value, derivative = value_and_derivative(function, (x,), (t,))
    assert type(value) is type(derivative) is Tensor
    assert torch.equal(value, function(x))
    h = 1e-6
    if "item" not in function.__code__.co_names and "detach" not in function.__code__.co_names:
        differences = (function(x + h * t) - function(x - h * t)) / (2 * h)
        torch.testing.assert_close(derivative, differences, rtol=1e-6, atol=1e-6)


def test_detach_and_item_stop_the_derivative():
    x, t = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 10.0])
    for function in (lambda x: x.detach() * x, lambda x: x.data * x):
        assert value_and_derivative(function, (x,), (t,))[1].tolist() == [2.0, 30.0]
    assert value_and_derivative(lambda x: x * x.sum().item(), (x,), (t,))[1].tolist() == [5.0, 50.0]


def test_labels_go_through_as_they_are():
    embedding = nn.Embedding(3, 2)
    value, derivative = value_and_derivative(
        lambda x, y: x * embedding(y), (torch.ones(3, 2), LABELS), (torch.ones(3, 2), None)
    )
    assert torch.equal(value, embedding(LABELS))
    assert torch.equal(derivative, value)


@pytest.mark.parametrize("layer", [nn.ReLU, nn.SiLU, nn.LeakyReLU, nn.Dropout])
def test_inplace_layers_change_what_they_are_given(layer):
    """As in a plain pass, the name that went in holds what came out, and the caller's tensors stay."""

    def function(x, inplace):
        h, net = 1 * x, layer(inplace=inplace)
        y = net(h)
        return y + h if inplace else y + y

    (x,), (t,) = square_pair()
    before, results = (x.clone(), t.clone()), []
    for inplace in (True, False):
        torch.manual_seed(0)
        results.append(value_and_derivative(lambda x, inplace=inplace: function(x, inplace), (x,), (t,)))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    value_and_derivative(layer(inplace=True), (x,), (t,))
    assert torch.equal(x, before[0])
    assert torch.equal(t, before[1])


def test_no_grad_within_the_function_stops_the_graph_alone():
    (x,), (t,) = square_pair()
    x.requires_grad_()
    value, derivative = value_and_derivative(torch.no_grad()(torch.sin), (x,), (t,))
    assert not value.requires_grad
    torch.testing.assert_close(derivative, t * x.detach().cos())


# Functions without a rule


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("logsumexp", lambda x: x.logsumexp(1) + torch.logsumexp(x, 0)),
        ("abs", lambda x: torch.view_as_complex(x).abs()),
        ("normalize", lambda x: F.normalize(x, dim=1)),
        ("max", lambda x: x.max(dim=1).values + x.max(dim=0)[0]),
        ("cat", lambda x: torch.cat(tensors=[x, 2 * x])),
        ("linear", lambda x: F.linear(input=x, weight=torch.ones(3, 2))),
        ("pow", lambda x: x.abs() ** x),
        ("scaled_dot_product_attention", lambda x: F.scaled_dot_product_attention(*3 * [x[None]], dropout_p=0.4)),
        ("as_strided", lambda x: (x[:, :1] + torch.ones(2, 2)).as_strided((3,), (1,))),
    ],
)
def test_a_function_without_a_rule_is_differentiated_with_one_warning(name, function):
    dual._told.discard(name)
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        compare(function, *square_pair())
        compare(function, *square_pair())
    assert [str(w.message).split(":")[0] for w in told] == [name]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, g):
        return -g


def assign(x):
    y = torch.zeros(2, 2)
    y[0] = x[0]
    return y


def accumulate(x):
    y = 1 * x
    y += x
    return y


IN_PLACE = 'changes a tensor in place; allowed: objective.tangent_method = "jvp" or "finite_difference"$'


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (accumulate, f"add_ {IN_PLACE}"),
        (lambda x: (1 * x).mul_(2), f"mul_ {IN_PLACE}"),
        (lambda x: F.relu_(1 * x), f"relu_ {IN_PLACE}"),
        (lambda x: torch.zeros(2, 2).copy_(x), f"copy_ {IN_PLACE}"),
        (lambda x: torch.add(x, x, out=torch.zeros(2, 2)), f"add {IN_PLACE}"),
        (assign, f"__setitem__ {IN_PLACE}"),
        (lambda x: (1 * x).requires_grad_(), f"requires_grad_ {IN_PLACE}"),
        (lambda x: x.numpy(), "numpy works below torch's functions"),
        (torch.vmap(lambda x: 2 * x), "mul.Tensor works below"),
        (lambda x: torch.autograd.grad(x.square().sum(), x)[0], "grad differentiates within the function"),
        (lambda x: x.square().sum().backward(), "backward differentiates within the function"),
        (Doubled.apply, 'forward .*test_dual.py.* a torch.autograd.Function; allowed: .*"finite_difference"$'),
        (Reversed.apply, "a torch.autograd.Function; allowed"),
        (lambda x: checkpoint(torch.sin, x, use_reentrant=True), "a torch.autograd.Function; allowed"),
        (lambda x: torch.cdist(x, x + 1), 'cdist has no derivative in forward mode; .* = "finite_difference"$'),
        (lambda x: value_and_derivative(torch.sin, (x,), (x,))[0], "one within another"),
    ],
)
def test_refusals_name_the_function_and_the_way_out(function, message):
    (x,), (t,) = square_pair()
    x.requires_grad_()
    with pytest.raises(NotImplementedError, match=message):
        value_and_derivative(function, (x,), (t,))


@pytest.mark.parametrize(
    ("tangents", "message"),
    [
        ((torch.ones(3, 2, dtype=torch.float64),), r"tangent: found \[3, 2\] torch.float64, allowed: \[2, 2\]"),
        ((torch.ones(2, 2, dtype=torch.float32),), r"found \[2, 2\] torch.float32, allowed: \[2, 2\] torch.float64"),
        ((None, None), "zip"),
    ],
)
def test_tangents_that_do_not_fit_are_refused(tangents, message):
    with pytest.raises(ValueError, match=message):
        value_and_derivative(torch.sin, (torch.ones(2, 2),), tangents)
