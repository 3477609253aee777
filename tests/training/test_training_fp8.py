# SPDX-License-Identifier: Apache-2.0
"""A frozen base in FP8: its arithmetic, and what jobs make of it."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from support.fast_models import (  # noqa: E402
    APART,
    CPU,
    KNOWN,
    LLAMA,
    PACKED,
    batch_of,
    fast_loss,
    loss_and_gradient,
    model_of,
)
from tuneyard_trainer.fast import fp8  # noqa: E402
from tuneyard_trainer.fast.path import FastPath  # noqa: E402
from tuneyard_trainer.fast.structure import UnknownStructureError  # noqa: E402
from tuneyard_trainer.model.quantized import quantization_options  # noqa: E402
from tuneyard_trainer.pod.failures import StageFailure  # noqa: E402
from tuneyard_trainer.training.batches import summed_loss  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def relative(made, expected):
    return float((made.float() - expected.float()).norm() / expected.float().norm())


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_numbers_are_rounded_to_e4m3_by_row():
    x = torch.tensor([[448.0, 1.0, -3.1], [0.0, 0.0, 0.0], [1e-3, -2e-3, 4e-3]])
    values, scales = fp8.quantize_rows(x)
    assert scales.flatten().tolist() == pytest.approx([1.0, 1e-12, 4e-3 / 448])
    # Three bits behind the first one: 3.1 lies between 3.0 and 3.25.
    assert (values.float() * scales).flatten().tolist() == pytest.approx(
        [448, 1, -3, 0, 0, 0, 1e-3, -2e-3, 4e-3], rel=0.07
    )
    assert relative(values.float()[0], torch.tensor([448.0, 1.0, -3.0])) == 0


@pytest.mark.parametrize(("widths", "count"), [((48,), 1), ((16, 32), 2), ((24, 24), 1), ((16, 16, 16), 1)])
def test_parts_are_rounded_as_one_and_stay_apart_where_a_product_takes_them(widths, count):
    x = drawn(5, 48)
    parts, scales = fp8.quantize_together(x.split(widths, 1))
    assert len(parts) == count
    values, expected = fp8.quantize_rows(x)
    assert torch.equal(torch.cat(parts, 1).float(), values.float())
    assert torch.equal(scales, expected)


@pytest.mark.parametrize("ranks", [(0,), (3,), (16, 8)])
def test_a_product_is_that_of_float32_as_near_as_e4m3_is(ranks):
    x, weight = drawn(70, 256, seed=1), drawn(96, 256, seed=2)
    u, v = drawn(70, sum(ranks), seed=3), drawn(96, sum(ranks), seed=4)
    rows, scales, columns, column_scales = fp8.hold(weight)
    made = fp8.product(fp8.quantize_together([x]), (rows, scales), (u, v))
    assert 0.01 < relative(made - u @ v.t(), x @ weight.t()) < 0.05
    gradient = drawn(70, 96, seed=5)
    none = gradient.new_empty(70, 0), gradient.new_empty(256, 0)
    back = fp8.product(fp8.quantize_together(gradient.split([32, 64], 1)), (columns, column_scales), none)
    assert 0.01 < relative(back, gradient @ weight) < 0.05


def test_the_compiler_is_told_the_shapes_that_the_operators_make():
    held = (*fp8.quantize_together(drawn(6, 32).chunk(2, 1)), *fp8.quantize_rows(drawn(16, 32, seed=1)))
    plain = ([drawn(6, 32), drawn(6, 8)], [drawn(32, 16), drawn(8, 16)])
    adapter = (drawn(6, 3), drawn(16, 3))
    for name, operands in (("fp8_product", held), ("product", plain)):
        operator = getattr(torch.ops.tuneyard, name).default
        torch.library.opcheck(operator, (*operands, *adapter), test_utils="test_faketensor")


KERNEL = """
import torch
from tuneyard_trainer.fast import fp8, fp8_kernel
draw = torch.Generator().manual_seed(7)
for _ in range(4):
    rows, out, depth = (int(torch.randint(1, 12, (), generator=draw)) * 16 for _ in range(3))
    rows -= int(torch.randint(0, 16, (), generator=draw))
    rank = int(torch.randint(0, 40, (), generator=draw))
    x, w, u, v = (torch.randn(*s, generator=draw) for s in ((rows, depth), (out, depth), (rows, rank), (out, rank)))
    cut = int(torch.randint(0, depth // 16, (), generator=draw)) * 16
    parts, scales = fp8.quantize_together(x.split([cut, depth - cut], 1) if cut else [x])
    weight = fp8.quantize_rows(w)
    expected = (torch.cat(parts, 1).float() * scales) @ (weight[0].float() * weight[1]).t() + u @ v.t()
    for made in (fp8_kernel.launch(parts, scales, *weight, u, v), fp8.product((parts, scales), weight, (u, v))):
        assert float((made - expected).norm() / expected.norm()) < 1e-5, (rows, out, depth, rank)
print("right")
"""


def test_the_kernel_makes_what_float32_makes_of_random_shapes():
    """Triton's interpreter runs the kernel's own lines on a CPU; it has to be told before the import."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", KERNEL],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "right", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU of the Hopper generation")
def test_on_a_gpu_the_kernel_makes_what_float32_makes_of_random_shapes():
    draw = torch.Generator().manual_seed(3)
    for _ in range(12):
        rows, out, depth = (int(torch.randint(1, 300, (), generator=draw)) * 16 for _ in range(3))
        rows -= int(torch.randint(0, 16, (), generator=draw))
        rank = int(torch.randint(0, 80, (), generator=draw))
        x, w, u, v = (
            torch.randn(*shape, generator=draw).bfloat16()
            for shape in ((rows, depth), (out, depth), (rows, rank), (out, rank))
        )
        cut = int(torch.randint(0, depth // 16, (), generator=draw)) * 16
        made = [
            fp8.product(
                fp8.quantize_together(on[0].split([cut, depth - cut], 1) if cut else on[:1]),
                fp8.quantize_rows(on[1]),
                (on[2], on[3]),
            ).cpu()
            for on in ([x, w, u, v], [each.cuda() for each in (x, w, u, v)])
        ]
        assert relative(made[1], made[0]) < 0.006, (rows, out, depth, rank)


@pytest.mark.parametrize("name", ["llama", "llama with biases", "qwen3", "phi3", "gemma"])
def test_loss_and_gradient_are_near_those_of_the_whole_model(name):
    """Random layers amplify what rounding does, the more the deeper they lie; trained ones do so less."""
    family, options = KNOWN[name]
    options = options | {"initializer_range": 0.1}
    exact = model_of(family, options)
    made = model_of(family, options)
    fast = FastPath(made, longest=64, is_compiled=False, is_fp8=True)
    for rows in (PACKED, APART):
        loss, gradient = loss_and_gradient(exact, summed_loss(exact, batch_of(rows), CPU))
        ours, slope = loss_and_gradient(made, fast_loss(fast, batch_of(rows)))
        assert ours == pytest.approx(loss, rel=0.02)
        assert relative(slope, gradient) > 1e-4
        assert float(torch.nn.functional.cosine_similarity(slope, gradient, dim=0)) > 0.9


def test_only_the_frozen_products_are_rounded(monkeypatch):
    """With numbers that FP8 keeps exactly, nothing is left of the difference."""
    monkeypatch.setattr(fp8, "E4M3", torch.float32)
    model = model_of("Qwen2", LLAMA, targets=["q_proj", "v_proj", "up_proj", "down_proj"])
    loss, gradient = loss_and_gradient(model, summed_loss(model, batch_of(PACKED), CPU))
    fast = FastPath(model, longest=64, is_compiled=False, is_fp8=True)
    ours, slope = loss_and_gradient(model, fast_loss(fast, batch_of(PACKED)))
    assert ours == pytest.approx(loss, rel=1e-5)
    assert relative(slope, gradient) < 1e-4


def test_the_model_computes_with_the_same_weights_and_holds_no_others():
    model = model_of("Llama", LLAMA | {"initializer_range": 0.1})
    fast = FastPath(model, longest=64, is_compiled=False, is_fp8=True)
    with torch.no_grad():
        plain = float(summed_loss(model, batch_of(PACKED), CPU))
        assert float(fast_loss(fast, batch_of(PACKED))) == pytest.approx(plain, rel=0.01)
    layer = model.get_base_model().model.layers[1]
    frozen = layer.self_attn.k_proj.base_layer
    assert isinstance(frozen, fp8.Fp8Linear)
    assert (
        frozen.rows.untyped_storage().data_ptr() == fast._layers[1].qkv.frozen[0].untyped_storage().data_ptr()
    )
    assert {name.split(".")[-2] for name, each in layer.named_parameters() if each.requires_grad} == {
        "default"
    }
    assert not [name for name, _ in layer.named_parameters() if "base_layer" in name]


def test_an_adapter_that_is_added_later_goes_where_the_weights_are():
    model = model_of("Llama", LLAMA)
    FastPath(model, longest=64, is_compiled=False, is_fp8=True)
    layer = model.get_base_model().model.layers[0].mlp.down_proj
    layer.base_layer.to("meta")
    layer.update_layer("read_back", 3, 8, config=model.peft_config["default"])
    assert layer.lora_A["read_back"].weight.device.type == "meta"
    assert layer.lora_A["read_back"].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("capability", "called"),
    [((8, 0), "NVIDIA A100-SXM4-80GB"), ((8, 9), "NVIDIA L40S"), ((9, 0), None), ((10, 0), None)],
)
def test_a_gpu_without_fp8_is_refused_by_name(capability, called, job_of, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: called)
    job, gpu = job_of(tmp_path, tmp_path, quantization="fp8"), torch.device("cuda", 0)
    if called is None:
        assert quantization_options(job, gpu, torch.bfloat16) == {}
    else:
        with pytest.raises(
            StageFailure, match=rf"Hopper generation or later, and this is {called} \(got fp8\)"
        ):
            quantization_options(job, gpu, torch.bfloat16)


def test_widths_that_products_in_fp8_do_not_take_are_refused():
    model = model_of("Llama", LLAMA | {"intermediate_size": 40})
    before = float(summed_loss(model, batch_of(PACKED), CPU).detach())
    with pytest.raises(UnknownStructureError, match="a layer is 40 wide, which is no multiple of 16"):
        FastPath(model, longest=64, is_compiled=False, is_fp8=True)
    assert float(summed_loss(model, batch_of(PACKED), CPU).detach()) == before
