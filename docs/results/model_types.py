"""Every model type of transformers that is a causal LM, made small, with random weights: is it served, and if not, why?

    python docs/results/model_types.py    # any machine, minutes; makes model_types.json anew

A type's own defaults are made small, setting by setting, by what it is called. Exact means: chapter 1, on the CPU,
gives the tokens of transformers' own greedy `generate`, of prompts that are longer than the small models' windows too.
"""

import os
import re
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing is asked of the hub

import torch
import transformers
from common import RESULTS
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as TYPES

from acb_minimal.errors import InputError
from acb_minimal.measure.metrics import environment
from acb_minimal.measure.result_table import ResultTable
from acb_minimal.run.model_support import in_one_line
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job
from acb_minimal.sim.device import CpuDevice

PROMPTS = [[5, 17, 3], [8], list(range(20, 39))]
# The first pattern that a setting's name matches says what it becomes.
SMALL = [
    ("(pad|decoder_start)_token_id|pad_index", 0),
    (".*(_token_id|_token_index|_index)", None),
    (".*vocab_size.*|.*_group_vocab", 89),
    ("max_position_embeddings|n_positions|n_ctx|max_seq_len|model_max_length|context_length|max_target_positions", 128),
    (".*(kv|key_value)_?(n_)?heads.*|num_query_groups", 2),
    ("(.*_)?(n_|num_)?(attention_|mamba_)?heads?|linear_num_.*heads", 4),
    (".*(head_dim|d_kv|kv_channels|dim_head|d_head|head_size|rotary_dim)", 16),
    ("(hidden_size|attention_hidden_size|hidden_size_global|n_embd|(d|dim)_model|(word_)?emb(ed)?(ding)?_(proj_)?dim"
     "|(input_|output_)?embedding_size|lru_width)", 64),
    (".*(intermediate_size|ffn_dim|ffn_hidden_size|d_ff|dim_ff|dff|mlp_dim|n_inner|inner_dim|feed_forward_size).*", 48),
    ("num_hidden_layers|n_layers?|num_layers|(num_)?(encoder|decoder)_layers|depth|num_layers_per_stack", 2),
    (".*(experts_per_tok(en)?|moe_top_?k|moe_k|topk_group|n_group|num_expert_group)", 1),
    (".*shared_experts", 1),
    (".*(num_experts|num_local_experts|n_routed_experts|moe_num_experts|zero_expert_num).*", 4),
    (".*_rank", 16),
    (".*sliding_window|window_size|local_attention|attention_window_size|sliding_window_size", 12),
    ("attention_chunk_size", 8),
    ("initializer_range|init_std|initializer_std|init_method_std", 0.3),  # large: each token depends on all before it
]  # fmt: skip
# These are given a size even if a type has none for them.
UNSET = ("pad_token_id", "head_dim", "num_key_value_heads", "n_routed_experts", "n_shared_experts",
         "num_experts_per_tok", "n_group", "topk_group")  # fmt: skip
# What these types want besides, or instead.
ROPE = {"rope_type": "default", "rope_theta": 1e4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_ssm": 128}
BESIDES = {
    "bamba": MAMBA, "falcon_h1": MAMBA, "granitemoehybrid": MAMBA, "mamba2": {"num_heads": 8},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 2}},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1, "num_hidden_layers": 3},
    "dots3_note": {"text_config": {"num_key_value_heads": 4}}, "dots3_note_text": {"num_key_value_heads": 4},
    "gemma3n_text": {"num_kv_shared_layers": 0}, "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2_moe": {"layer_types": ["full_attention"] * 2}, "xlnet": {"d_head": 16},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "cohere_compass_text": {"rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), ROPE)},
    "zamba": {"layers_block_type": ["mamba", "hybrid"]}, "zamba2": {"layers_block_type": ["mamba", "hybrid"]},
}  # fmt: skip


def small(settings: dict, unset: tuple[str, ...], special: int | None) -> dict:
    """Those of a config's settings that are to be changed, and what to.

    Args:
        unset: names of those that are changed even if they are None.
        special: the id of special tokens.
    """
    changed = {}
    for name, value in settings.items():
        if isinstance(value, dict) and "model_type" in value:
            changed[name] = small(value, unset, special)
        elif isinstance(value, int | float) and not isinstance(value, bool) or (value is None and name in unset):
            size = next((size for pattern, size in SMALL if re.fullmatch(pattern, name)), value)
            size = special if size is None else size
            if size != value:
                changed[name] = size
    return changed


def small_config(model_type: str) -> PretrainedConfig:
    """Raises whatever the config class does where no way to make it small is one of its own."""
    kind, errors = CONFIG_MAPPING[model_type], []
    for unset, special in ((UNSET, 88), (UNSET[:1], 88), (UNSET, None)):
        try:
            changed = small(kind().to_dict(), unset, special)
            for name, value in BESIDES.get(model_type, {}).items():
                changed[name] = changed.get(name, {}) | value if isinstance(value, dict) else value
            config = kind(**changed)
            with torch.device("meta"):
                AutoModelForCausalLM.from_config(config)
            return config
        except Exception as error:
            errors.append(error)
    raise errors[0]


def tried(model_type: str, folder: str) -> tuple[str, str]:
    """What became of a type, and why."""
    try:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(small_config(model_type)).save_pretrained(folder)
    except Exception as error:
        return "cannot be made small", in_one_line(error)
    try:
        job = Job(PROMPTS, 8, max_running=2, max_batch_tokens=16, page_size=4, ignore_stop=True)
        done = Session(job, "ch1", folder, "cpu").serve()
    except InputError as error:
        return "refused", str(error).partition("cannot be served here: ")[2] or str(error).replace(folder, "")
    reference = AutoModelForCausalLM.from_pretrained(folder).eval()
    for prompt, completion in zip(PROMPTS, done, strict=True):
        ids = torch.tensor([prompt])
        options = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": None}
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), **options)
        if out[0, len(prompt) :].tolist() != completion.tokens:
            return "served wrong", f"{completion.tokens}, not {out[0, len(prompt) :].tolist()}"
    return "exact", ""


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = []
    for model_type, name in sorted(TYPES.items()):
        with tempfile.TemporaryDirectory() as folder:
            rows.append([model_type, name, *tried(model_type, folder)])
        print(*rows[-1], sep="  ", flush=True)
    verdicts = [verdict for _, _, verdict, _ in rows]
    note = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
    columns = {"model type": "", "class": "", "verdict": "", "why": ""}
    table = ResultTable("Model types of transformers", columns, rows, note + ".", environment(CpuDevice()))
    table.save(RESULTS / "model_types.json", "model_types")
    print(note)
