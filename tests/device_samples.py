"""Exported C on a microcontroller that is emulated: a Cortex-M4 with its floating point unit.

    python tests/device_samples.py RUN

prints what the policy of a run, and a dense one of the same sizes, take there. It needs
arm-none-eabi-gcc with newlib, and qemu-system-arm (Debian: gcc-arm-none-eabi,
libnewlib-arm-none-eabi, qemu-system-arm).

The emulator counts instructions; it does not know how many cycles one takes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dstrl_cli.export import c_code, clocks
from dstrl_cli.export.network import Network, dense_like, needed_part
from dstrl_cli.runs.policy import Policy, find_policy

COMPILER, SIZES, EMULATOR = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
CHIP = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
FLAGS = (*CHIP, *clocks.FLAGS, "-ffunction-sections", "-fdata-sections")
LINK = ("-nostartfiles", "-specs=nosys.specs", "-Wl,--gc-sections")
BOARD = ("-machine", "mps2-an386", "-icount", "shift=0", "-display", "none", "-monitor", "none")
OUTPUT = ("-serial", "none", "-chardev", "stdio,id=out", "-semihosting-config", "chardev=out")
INSTRUCTIONS_A_TICK = 40
"""With `shift=0` an instruction takes a nanosecond; the board's clock has 25 MHz."""

needs_device = pytest.mark.skipif(
    not all(map(shutil.which, (COMPILER, SIZES, EMULATOR))),
    reason=f"{COMPILER} or {EMULATOR} is not on this machine",
)


@dataclass(frozen=True)
class Ran:
    """What the device did with a policy.

    Attributes:
        actions: of each observation [N, act].
        instructions: of one action, the mean.
        code, constants: bytes of flash of the policy's file, without the C library.
        stack: most bytes of RAM that an action took, with those of the C library.
    """

    actions: NDArray[Any]
    instructions: float
    code: int
    constants: int
    stack: int


_MEMORY = """\
MEMORY {
    FLASH (rx) : ORIGIN = 0, LENGTH = 4M
    RAM (rw) : ORIGIN = 0x20000000, LENGTH = 4M
}
SECTIONS {
    .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > FLASH
    .ARM.exidx : { *(.ARM.exidx*) } > FLASH
    .data : { *(.data*) } > RAM
    .bss : { *(.bss*) *(COMMON) end = .; } > RAM
}
"""

_MAIN = """\
#include "policy.h"
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TOP 0x20400000u
#define PAINTED 4096 /* words of stack below this program's own */
#define CLOCK ((volatile uint32_t *)0xE000E010) /* SysTick: control, first value, value */

static const float observations[][POLICY_OBSERVATIONS] = {
#include "observations.h"
};

static void host(int operation, uintptr_t argument)
{
    register int r0 __asm__("r0") = operation;
    register uintptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(uint32_t value)
{
    char text[] = "00000000\\n";
    for (int i = 7; i >= 0; i--, value >>= 4)
        text[i] = "0123456789abcdef"[value & 15];
    host(4, (uintptr_t)text);
}

static void reset(void)
{
    static TYPE action[POLICY_ACTIONS];
    const size_t count = sizeof observations / sizeof observations[0];
    volatile uint32_t *own;
    uint32_t ticks, deep = 0;
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* allow the floating point unit */
    __asm__ volatile("dsb\\n isb\\n mov %0, sp" : "=r"(own));
    for (int i = 1; i <= PAINTED; i++)
        own[-i] = 0xA5A5A5A5;
    CLOCK[1] = 0xFFFFFF;
    CLOCK[2] = 0;
    CLOCK[0] = 5;
    ticks = CLOCK[2];
    for (size_t i = 0; i < count; i++)
        policy_act(observations[i], action);
    ticks = (ticks - CLOCK[2]) & 0xFFFFFF;
    for (int i = 1; i <= PAINTED; i++)
        if (own[-i] != 0xA5A5A5A5)
            deep = 4 * i;
    print(ticks);
    print(deep);
    for (size_t i = 0; i < count; i++) {
        uint32_t words[sizeof action / 4];
        policy_act(observations[i], action);
        memcpy(words, action, sizeof action);
        for (size_t j = 0; j < sizeof action / 4; j++)
            print(words[j]);
    }
    host(0x18, 0x20026);
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[] = {
    TOP, (uintptr_t)reset,
};
"""


def run(network: Network, observations: NDArray[np.float32], folder: Path) -> Ran:
    """Compile the C code of a network for the device, and let it act there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in c_code.files(network, folder / "policy", []).items():
        path.write_bytes(content)
    rows = (",".join(f"{float(value).hex()}f" for value in row) for row in observations)
    (folder / "observations.h").write_text("".join(f"{{{row}}},\n" for row in rows))
    (folder / "main.c").write_text(_MAIN)
    (folder / "memory.ld").write_text(_MEMORY)
    kind = f"-DTYPE={c_code.action_type(network)}"
    _output(COMPILER, *FLAGS, "-c", "policy.c", "-o", "policy.o", folder=folder)
    sources = ("main.c", "policy.o", "-T", "memory.ld", "-lm", "-o", "program.elf")
    _output(COMPILER, *FLAGS, *LINK, kind, *sources, folder=folder)
    code, constants = _sizes(_output(SIZES, "-A", "policy.o", folder=folder))
    printed = _output(EMULATOR, *BOARD, *OUTPUT, "-kernel", "program.elf", folder=folder)
    ticks, stack, *words = (int(line, 16) for line in printed.split())
    actions = np.array(words, np.uint32).view(network.scale.low.dtype)
    instructions = ticks * INSTRUCTIONS_A_TICK / len(observations)
    return Ran(actions.reshape(len(observations), -1), instructions, code, constants, stack)


def _sizes(table: str) -> tuple[int, int]:
    """Return the bytes of code and of constants of an object file."""
    found = {"text": 0, "rodata": 0}
    for line in table.splitlines():
        name, _, rest = line.partition(" ")
        kind = name.removeprefix(".").partition(".")[0]
        if kind in found:
            found[kind] += int(rest.split()[0])
    return found["text"], found["rodata"]


def _output(*command: str, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _print(run_or_file: Path) -> None:
    policy = Policy.load(find_policy(run_or_file))
    draw = np.random.default_rng(0).standard_normal((10, policy.observation_size))
    seen = draw.astype(np.float32)
    for name, network in (("exported", needed_part(policy)), ("dense", dense_like(policy))):
        with tempfile.TemporaryDirectory() as folder:
            ran = run(network, seen, Path(folder))
        print(
            f"{name}: {ran.instructions:,.0f} instructions an action; flash: constants "
            f"{ran.constants:,} B, code {ran.code:,} B and that of tanhf; stack {ran.stack:,} B"
        )


if __name__ == "__main__":
    _print(Path(sys.argv[1]))
