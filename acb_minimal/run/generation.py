"""What a model's generation config asks for: obeyed, or refused by name."""

from collections.abc import Iterator

from transformers import GenerationConfig

from ..sampling import Sampling

# What a generation config may say, whatever the value: obeyed, or of no effect on the likeliest token.
HARMLESS = {
    "pad_token_id", "bos_token_id", "decoder_start_token_id", "max_length", "max_new_tokens", "do_sample",
    "temperature", "top_k", "top_p", "repetition_penalty", "min_new_tokens", "early_stopping",
    "length_penalty", "use_cache", "max_cache_len", "low_memory", "disable_compile", "compile_config",
    "prefill_chunk_size", "continuous_batching_config", "return_dict_in_generate", "output_scores", "output_logits",
    "output_attentions", "output_hidden_states", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind", "max_matching_ngram_size",
    "transformers_version", "_from_model_config",
}  # fmt: skip
# What does nothing to the likeliest token, but changes what is drawn.
DRAWN = {"min_p": [0.0], "top_h": [], "typical_p": [1.0], "epsilon_cutoff": [0.0], "eta_cutoff": [0.0]}
TOP_K = 50  # transformers' own, where tokens are drawn and nothing is said of it
# And what it may say with these values, which ask for nothing. Any other may be None or False.
NEUTRAL = {
    "encoder_repetition_penalty": [1.0], "guidance_scale": [1.0], "num_beams": [1],
    "num_beam_groups": [1], "num_return_sequences": [1], "diversity_penalty": [0.0], "penalty_alpha": [0.0],
    "no_repeat_ngram_size": [0], "encoder_no_repeat_ngram_size": [0], "min_length": [0],
    "assistant_ensemble_weight": [0.0], "suppress_tokens": [[]], "begin_suppress_tokens": [[]],
    "cache_implementation": ["dynamic", "static", "offloaded", "offloaded_static", "sliding_window", "hybrid"],
}  # fmt: skip


class UnsupportedModel(Exception):
    """A network would be served wrong; the message says why."""


def flaws(config: GenerationConfig) -> Iterator[str]:
    """What a generation config asks for that is not known to be built in."""
    for name, value in config.to_dict().items():
        known = value is None or value is False or name in HARMLESS or value in NEUTRAL.get(name, ())
        if name in DRAWN:
            known = value is None or not config.do_sample or value in DRAWN[name]
        if name == "eos_token_id":  # obeyed
            known = value is None or all(type(each) is int for each in (value if isinstance(value, list) else [value]))
        if not known:
            yield (
                f"its generation config has {name} = {value!r}, which this engine does not obey (take it out of "
                "generation_config.json, or of config.json if there is none, to be served without)"
            )


def sampling(config: GenerationConfig) -> Sampling:
    """What a generation config asks for, with what transformers' `generate` takes where it says nothing; InputError if
    a value makes no sense."""
    names = {"repetition_penalty": "repetition_penalty", "min_new_tokens": "min_tokens"}
    drawn = {"temperature": 1.0, "top_k": TOP_K} if config.do_sample else {}
    names |= {name: name for name in (*drawn, "top_p") if drawn}
    asked = {ours: value for name, ours in names.items() if (value := getattr(config, name, None)) is not None}
    return Sampling(**drawn | asked)
