"""`models`: the models for batch jobs, their context and their prices.

Comes in: search words. Goes out: a table of the prices that come with the package (genai-prices);
no network.
"""

from __future__ import annotations

import click

from nyu_llm_frames.cli import command_options as options
from nyu_llm_frames.cli import show


@click.command()
@click.argument("words", nargs=-1)
@options.as_json
def models(words: tuple[str, ...], json_: bool) -> None:
    """List Gemini models: name, context in tokens, US dollars per million tokens in batch jobs.

    WORDS filter the names, such as `flash` or `3.5`. Portkey's Model Catalog lists the models of
    your workspace. Prices are those of genai-prices; thinking is billed as output.
    """
    import pandas as pd

    from nyu_llm_frames._shared.clock import current_clock
    from nyu_llm_frames._stages.cost.prices import gemini_models

    found = [
        model
        for model in gemini_models(current_clock().now())
        if all(word.casefold() in model.name for word in words)
    ]
    if json_:
        show.as_json(
            [
                {
                    "model": m.name,
                    "context_tokens": m.context,
                    "batch_usd_per_million_prompt_tokens": m.price.batch.input.base,
                    "batch_usd_per_million_output_tokens": m.price.batch.output.base,
                }
                for m in found
            ]
        )
        return
    rows = [
        {
            "model": m.name,
            "context": "" if m.context is None else f"{m.context:,}",
            "batch: $/M prompt": f"{m.price.batch.input.base:,.3f}",
            "$/M output": f"{m.price.batch.output.base:,.3f}",
        }
        for m in found
    ]
    show.frame(pd.DataFrame(rows), json_=False, empty="no known model has such a name")


COMMANDS = (models,)
