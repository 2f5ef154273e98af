/// The families that are known, as transformers 5 builds them; a test builds a model of each type and compares.
extension ModelFamily {
    /// The family of a `model_type`; nil if it is none of those.
    static func named(_ type: String) -> ModelFamily? { all.first { $0.types.contains(type) } }

    /// What can stand in `model_type`, in alphabetical order.
    static var knownTypes: [String] { (all.flatMap(\.types) + composites.keys).sorted() }

    /// Models of text and pictures by type: the list of blocks of the language model, and its type where `text_config` has none.
    static let composites: [String: (blocks: String, textType: String?)] = [
        "gemma3": ("model.language_model.layers", "gemma3_text"),
        "idefics3": ("model.text_model.layers", "llama"),
        "internvl": ("model.language_model.layers", "qwen2"),
        "llava": ("model.language_model.layers", "llama"),
        "llava_next": ("model.language_model.layers", "llama"),
        "llava_onevision": ("model.language_model.layers", "qwen2"),
        "mistral3": ("model.language_model.layers", "mistral"),
        "paligemma": ("model.language_model.layers", "gemma"),
        "qwen2_5_vl": ("model.language_model.layers", "qwen2_5_vl_text"),
        "qwen2_vl": ("model.language_model.layers", "qwen2_vl_text"),
        "qwen3_vl": ("model.language_model.layers", "qwen3_vl_text"),
        "smolvlm": ("model.text_model.layers", "llama"),
    ]

    private static let all = llamaLike + mixtures + pairs + gpts

    private static let separate = [
        Part("self_attn.q_proj", .hidden, .queries), Part("self_attn.k_proj", .hidden, .keys),
        Part("self_attn.v_proj", .hidden, .keys), Part("self_attn.o_proj", .queries, .hidden),
    ]
    private static let gated = [
        Part("mlp.gate_proj", .hidden, .feedForward), Part("mlp.up_proj", .hidden, .feedForward),
        Part("mlp.down_proj", .feedForward, .hidden),
    ]
    private static let gatedTogether = [
        Part("mlp.gate_up_proj", .hidden, .twiceFeedForward), Part("mlp.down_proj", .feedForward, .hidden),
    ]
    private static let shared = [
        Part("mlp.shared_expert.gate_proj", .hidden, .sharedExpert),
        Part("mlp.shared_expert.up_proj", .hidden, .sharedExpert),
        Part("mlp.shared_expert.down_proj", .sharedExpert, .hidden), Part("mlp.shared_expert_gate", .hidden, .one),
    ]
    private static let gptFields = Fields(
        hidden: ["n_embd", "hidden_size"], layers: ["n_layer", "num_hidden_layers"],
        heads: ["n_head", "num_attention_heads"], feedForward: ["n_inner", "intermediate_size"])

    private static func upAndDown(_ up: String, _ down: String) -> [Part] {
        [Part(up, .hidden, .feedForward), Part(down, .feedForward, .hidden)]
    }

    private static func gated(
        _ types: [String], heads: HeadSize = .configured(absent: nil), keys: Int? = nil
    ) -> ModelFamily {
        ModelFamily(
            types: types, attention: separate, feedForward: gated, headSize: heads,
            keyValueHeads: .configured(absent: keys))
    }

    /// Separate queries, keys and values, and a gated feed-forward part.
    private static let llamaLike: [ModelFamily] = [
        gated(["llama", "olmo", "olmo2", "olmo3", "granite", "cohere", "cohere2"]),
        gated(["mistral"], keys: 8),
        gated(["qwen2"], keys: 32),
        gated(["qwen2_vl_text", "qwen2_5_vl_text"], heads: .divided, keys: 8),
        gated(["qwen3", "qwen3_vl_text"], heads: .configured(absent: 128), keys: 32),
        gated(["gemma"], heads: .configured(absent: 256), keys: 16),
        gated(["gemma2"], heads: .configured(absent: 256), keys: 4),
        ModelFamily(
            types: ["gemma3_text"], attention: separate, feedForward: gated, headSize: .configured(absent: 256),
            keyValueHeads: .configured(absent: 4), absentHeads: 8),
        gated(["stablelm"], heads: .divided, keys: 32),
        gated(["smollm3"], keys: 4),
        gated(["seed_oss"], heads: .configured(absent: 128), keys: 8),
        ModelFamily(
            types: ["glm4"], attention: separate, feedForward: gatedTogether, headSize: .configured(absent: 128),
            keyValueHeads: .configured(absent: 2)),
        ModelFamily(
            types: ["phi3"],
            attention: [
                Part("self_attn.o_proj", .queries, .hidden), Part("self_attn.qkv_proj", .hidden, .queriesKeysValues),
            ], feedForward: gatedTogether),
    ]

    /// The same with experts.
    private static let mixtures: [ModelFamily] = [
        ModelFamily(
            types: ["mixtral"], attention: separate,
            mixture: Mixture(experts: ["num_local_experts"]), keyValueHeads: .configured(absent: 8)),
        ModelFamily(
            types: ["qwen2_moe"], attention: separate, feedForward: gated,
            mixture: Mixture(experts: ["num_experts"], shared: shared, hasDenseBlocks: true),
            keyValueHeads: .configured(absent: 16)),
        ModelFamily(
            types: ["qwen3_moe"], attention: separate, feedForward: gated,
            mixture: Mixture(experts: ["num_experts", "num_local_experts"], hasDenseBlocks: true),
            keyValueHeads: .configured(absent: 4)),
        ModelFamily(types: ["olmoe"], attention: separate, mixture: Mixture(experts: ["num_experts"])),
        ModelFamily(
            types: ["gpt_oss"], attention: separate, mixture: Mixture(experts: ["num_local_experts"]),
            headSize: .configured(absent: 64), keyValueHeads: .configured(absent: 8)),
    ]

    /// Separate queries, keys and values, and two layers of feed-forward.
    private static let pairs: [ModelFamily] = [
        ModelFamily(
            types: ["starcoder2"], attention: separate, feedForward: upAndDown("mlp.c_fc", "mlp.c_proj"),
            keyValueHeads: .configured(absent: 2)),
        ModelFamily(
            types: ["phi"],
            attention: separate.dropLast() + [Part("self_attn.dense", .queries, .hidden)],
            feedForward: upAndDown("mlp.fc1", "mlp.fc2")),
        ModelFamily(
            types: ["opt"], blocks: "model.decoder.layers",
            attention: [
                Part("self_attn.k_proj", .hidden, .keys), Part("self_attn.v_proj", .hidden, .keys),
                Part("self_attn.q_proj", .hidden, .queries), Part("self_attn.out_proj", .queries, .hidden),
            ], feedForward: upAndDown("fc1", "fc2"), fields: Fields(feedForward: ["ffn_dim"]), headSize: .divided,
            keyValueHeads: .all,
            embedding: ("word_embed_proj_dim", ["model.decoder.project_out", "model.decoder.project_in"])),
        ModelFamily(
            types: ["gpt_neo"], blocks: "transformer.h",
            attention: [
                Part("attn.attention.k_proj", .hidden, .keys), Part("attn.attention.v_proj", .hidden, .keys),
                Part("attn.attention.q_proj", .hidden, .queries), Part("attn.attention.out_proj", .queries, .hidden),
            ], feedForward: upAndDown("mlp.c_fc", "mlp.c_proj"),
            fields: Fields(layers: ["num_layers"], heads: ["num_heads"]), headSize: .divided, keyValueHeads: .all,
            feedForwardFactor: 4),
        ModelFamily(
            types: ["gptj"], blocks: "transformer.h",
            attention: [
                Part("attn.k_proj", .hidden, .keys), Part("attn.v_proj", .hidden, .keys),
                Part("attn.q_proj", .hidden, .queries), Part("attn.out_proj", .queries, .hidden),
            ], feedForward: upAndDown("mlp.fc_in", "mlp.fc_out"), fields: gptFields, headSize: .divided,
            keyValueHeads: .all, feedForwardFactor: 4),
    ]

    /// Queries, keys and values in one layer, and two layers of feed-forward.
    private static let gpts: [ModelFamily] = [
        gpt2("gpt2", keyValueHeads: .all),
        gpt2("gpt_bigcode", keyValueHeads: .multiQuery),
        ModelFamily(
            types: ["gpt_neox"], blocks: "gpt_neox.layers",
            attention: [
                Part("attention.query_key_value", .hidden, .queriesKeysValues),
                Part("attention.dense", .queries, .hidden),
            ], feedForward: upAndDown("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), headSize: .divided,
            keyValueHeads: .all),
        ModelFamily(
            types: ["bloom"], blocks: "transformer.h", attention: together,
            feedForward: upAndDown("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            fields: Fields(
                hidden: ["n_embed", "hidden_size"], layers: ["n_layer", "num_hidden_layers"],
                heads: ["n_head", "num_attention_heads"], feedForward: []),
            headSize: .divided, keyValueHeads: .all, feedForwardFactor: 4),
        ModelFamily(
            types: ["falcon"], blocks: "transformer.h", attention: together,
            feedForward: upAndDown("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            fields: Fields(
                layers: ["num_hidden_layers", "n_layer"], heads: ["num_attention_heads", "n_head"],
                feedForward: ["ffn_hidden_size"]),
            headSize: .divided, keyValueHeads: .falcon, feedForwardFactor: 4),
    ]

    private static func gpt2(_ type: String, keyValueHeads: KeyValueHeads) -> ModelFamily {
        ModelFamily(
            types: [type], blocks: "transformer.h",
            attention: [
                Part("attn.c_attn", .hidden, .queriesKeysValues), Part("attn.c_proj", .queries, .hidden),
            ], feedForward: upAndDown("mlp.c_fc", "mlp.c_proj"), fields: gptFields, headSize: .divided,
            keyValueHeads: keyValueHeads, feedForwardFactor: 4)
    }

    private static let together = [
        Part("self_attention.query_key_value", .hidden, .queriesKeysValues),
        Part("self_attention.dense", .queries, .hidden),
    ]
}
