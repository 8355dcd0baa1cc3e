"""Checks a job's loss before its first step, and writes what had to be turned off into the plan."""

from __future__ import annotations

from dataclasses import replace

from sartor.base.i18n import tr
from sartor.base.types import token_sequences
from sartor.model.lora_targets import describe_lora
from sartor.model.loss_check import ROW_TOKENS, check_loss
from sartor.training.job import TrainingJob
from sartor.training.plan import Plan
from sartor.training.stages import STAGES


def checked_plan(job: TrainingJob) -> Plan:
    """The plan without what would change the loss. Raises: ModelError where it cannot be reproduced."""
    plan, stage = job.plan, STAGES.get(job.config.method.stage)
    first = (token_sequences(job.rows[number]) for number in range(min(len(job.rows), len(ROW_TOKENS))))
    rows = [sequence for sequences in first for sequence in sequences]
    packs = plan.packing or stage.packs
    found = check_loss(job.model, rows, stage.score, job.pad_id, pack=packs)
    reasons = dict(plan.reasons)
    reasons["loss"] = tr("compared with the model's own forward pass on a few rows: the same")
    if job.config.method.finetuning_type == "lora":
        reasons["lora_target"] = describe_lora(job.model)
    if found.off:
        reasons["loss"] = tr(
            "the model's own code instead of ours ({shortcuts}), which would differ: {difference}",
            shortcuts=", ".join(found.off),
            difference=found.reasons["loss"],
        )
    never_pack = packs and not found.packs
    if never_pack:
        reasons["packing"] = tr(
            "off: this model mixes the examples of a packed row: {difference}", difference=found.reasons["packing"]
        )
    packing = plan.packing and not never_pack
    return replace(plan, reasons=reasons, shortcuts_off=found.off, packing=packing, never_pack=never_pack)
