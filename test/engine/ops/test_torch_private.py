"""Private entry points of torch: each exists and works in the pinned torch, and no other file touches one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from backend.engine.ops import torch_private

BACKEND = Path(__file__).parents[3] / "backend"
PRIVATE = BACKEND / "engine/ops/torch_private.py"

# All that torch_private.py uses, named here so that a bump of torch says which one went.
NAMES = {
    "torch._C._get_mkldnn_enabled",
    "torch._C._set_mkldnn_enabled",
    "torch._int_mm",
    "torch._make_per_channel_quantized_tensor",
    "torch.cpu._is_amx_tile_supported",
    "torch.cpu._is_avx512_bf16_supported",
    "torch.cpu._is_vnni_supported",
    "torch.ops.mkldnn._convolution_pointwise",
    "torch.ops.mkldnn._is_mkldnn_bf16_supported",
    "torch.ops.mkldnn._linear_pointwise",
    "torch.ops.mkldnn._reorder_linear_weight",
    "torch.ops.quantized.linear_prepack",
    "torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32",
}

needs_onednn = pytest.mark.skipif(not torch_private.ONEDNN_ENABLED, reason="onednn_*: this torch has no oneDNN")
needs_fbgemm = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="fbgemm_*: this torch has no FBGEMM"
)


def dotted(node: ast.expr, imported: dict[str, str]) -> str:
    """`a.b.c` as the name that it has in torch, or "" where it does not begin with something imported from torch."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, imported)
        return before and f"{before}.{node.attr}"
    return imported.get(node.id, "") if isinstance(node, ast.Name) else ""


def is_private(name: str) -> bool:
    parts = name.split(".")
    return parts[:2] == ["torch", "ops"] or any(part.startswith("_") and not part.endswith("__") for part in parts)


def private_names(source: str) -> set[str]:
    """The private names of torch that a file uses or imports, the longest of each chain of attributes."""
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "torch":
                    imported[alias.asname or "torch"] = alias.name if alias.asname else "torch"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    names = {name for name in imported.values() if is_private(name)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner and is_private(name := dotted(node, imported)):
            names.add(name)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            of, attribute = node.args[:2]
            text = attribute.value if isinstance(attribute, ast.Constant) else None
            if dotted(of, imported) and isinstance(text, str) and text.startswith("_"):
                names.add(f"{dotted(of, imported)}.{text}")
    return names


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch._C._x()", {"torch._C._x"}),
        ("import torch.nn\ntorch.nn.functional._f", {"torch.nn.functional._f"}),
        ("from torch import ops as o\no.mkldnn.y(1)", {"torch.ops", "torch.ops.mkldnn.y"}),
        ("from torch._inductor import config", {"torch._inductor.config"}),
        ("from torch.nn import functional as F\nF._g(2).h", {"torch.nn.functional._g"}),
        ("import torch\ngetattr(torch, '_int_mm')", {"torch._int_mm"}),
        ("import torch\ntorch.__version__\ntorch.mm\nself._torch._x", set()),
    ],
)
def test_private_names_are_found_in_every_spelling(source: str, found: set[str]) -> None:
    assert private_names(source) - {"torch.ops"} == found - {"torch.ops"}


def test_no_other_file_touches_a_private_name_of_torch() -> None:
    files = [path for path in BACKEND.rglob("*.py") if path != PRIVATE and "backend_pb2" not in path.name]
    assert {str(path): names for path in files if (names := private_names(path.read_text()))} == {}


def test_each_private_name_is_listed_here() -> None:
    assert private_names(PRIVATE.read_text()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_exists_in_this_torch(name: str) -> None:
    found: object = torch
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    assert callable(found)


def test_instruction_sets_are_those_of_the_processor() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else None
    if flags is None:
        pytest.skip("cpu_has_*: needs /proc")
    assert torch_private.cpu_has_bf16() == bool(flags & {"avx512_bf16", "amx_tile"})
    assert torch_private.cpu_has_vnni() == bool(flags & {"avx512_vnni"})


@needs_onednn
def test_onednn_is_off_within_and_on_afterwards() -> None:
    enabled = torch._C._get_mkldnn_enabled
    with torch_private.without_onednn(), torch_private.without_onednn():
        assert not enabled()
    assert enabled()


@needs_onednn
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("bias", [False, True])
def test_onednn_multiplies_plain_and_packed_weights(activation: torch_private.Activation, bias: bool) -> None:
    module, x = nn.Linear(24, 40, bias=bias), torch.randn(3, 24)
    with torch.inference_mode():
        wanted = gelu(module(x)) if activation == "gelu" else module(x)
        packed = torch_private.onednn_pack_linear(module.weight)
        for weight in (module.weight, packed):
            found = torch_private.onednn_linear(x, weight, module.bias, activation)
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@needs_onednn
def test_onednn_multiplies_in_bf16_where_it_says_so() -> None:
    if not torch_private.onednn_has_bf16():
        pytest.skip("onednn_has_bf16: not on this processor")
    module, x = nn.Linear(24, 40).to(torch.bfloat16), torch.randn(3, 24).to(torch.bfloat16)
    with torch.inference_mode():
        found = torch_private.onednn_linear(x, torch_private.onednn_pack_linear(module.weight), module.bias)
        torch.testing.assert_close(found, module(x), atol=1e-2, rtol=1e-2)


@needs_onednn
def test_onednn_convolves_with_gelu_inside() -> None:
    convolution, x = nn.Conv2d(2, 8, 3, stride=2, padding=1), torch.randn(1, 2, 16, 12)
    with torch.inference_mode():
        found = torch_private.onednn_conv2d(x, convolution, "gelu")
        torch.testing.assert_close(found, gelu(convolution(x)), atol=1e-5, rtol=1e-4)


def test_int8_products_are_exact() -> None:
    left, right = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((20, 64), (64, 24)))
    assert torch.equal(torch_private.int_mm(left, right), left.int() @ right.int())


@needs_fbgemm
def test_fbgemm_multiplies_quantised_inputs_with_quantised_weights() -> None:
    weight, scales = torch.randint(-127, 128, (24, 64), dtype=torch.int8), torch.rand(24)
    steps = torch.randint(-63, 64, (5, 64))
    packed = torch_private.fbgemm_pack(torch_private.fbgemm_weight(weight, scales))
    found = torch_private.fbgemm_linear(steps / 63, packed, 1 / 63, 64)
    wanted = (steps @ weight.T.long()).float() / 63 * scales
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)
