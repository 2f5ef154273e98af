/// How the linear modules of a family of transformer models are named, and how large they are by the fields of the configuration.
struct ModelFamily: Sendable {
    /// Values of `model_type`.
    let types: [String]
    /// The name of the list of blocks.
    var blocks = "model.layers"
    /// Of a block's attention, in the order of the model.
    let attention: [Part]
    /// Of a block's feed-forward part.
    var feedForward: [Part] = []
    /// In place of `feedForward`, where blocks have experts.
    var mixture: Mixture?
    var fields = Fields()
    var headSize = HeadSize.configured(absent: nil)
    var keyValueHeads = KeyValueHeads.configured(absent: nil)
    /// Heads where the configuration has no such field; nil: it must.
    var absentHeads: Int?
    /// Hidden sizes of the feed-forward part where the configuration does not give it; nil: it must.
    var feedForwardFactor: Int?
    /// Two layers of the model itself, between word embeddings of this field's size and the hidden size, where they differ.
    var embedding: (field: String, parts: [String])?

    /// A linear module and its two sides.
    struct Part: Sendable {
        let name: String
        let inputs: Size
        let outputs: Size

        init(_ name: String, _ inputs: Size, _ outputs: Size) {
            self.name = name
            self.inputs = inputs
            self.outputs = outputs
        }
    }

    /// A side, in terms of the configuration.
    enum Size: Sendable {
        case hidden, feedForward, twiceFeedForward, sharedExpert, one
        /// All heads of queries, of keys, and of queries, keys and values together.
        case queries, keys, queriesKeysValues
    }

    /// The names of fields that differ between families; the first that is there counts.
    struct Fields: Sendable {
        var hidden = ["hidden_size"]
        var layers = ["num_hidden_layers"]
        var heads = ["num_attention_heads"]
        var feedForward = ["intermediate_size"]
    }

    /// Numbers of one head.
    enum HeadSize: Sendable {
        /// `head_dim`. Where it is absent, what transformers takes then; where that is nil, or the field null, hidden size by heads.
        case configured(absent: Int?)
        /// Hidden size by heads, whatever else is said.
        case divided
    }

    /// Heads of keys and values.
    enum KeyValueHeads: Sendable {
        /// `num_key_value_heads`. Where it is absent, what transformers takes then; where that is nil, or the field null, those of queries.
        case configured(absent: Int?)
        /// As many as of queries.
        case all
        /// One if `multi_query`, true where it is absent; else all.
        case multiQuery
        /// As `multiQuery`, but in the new architecture `num_kv_heads`.
        case falcon
    }

    /// Experts: transformers 5 keeps those of a block in one parameter, which is no layer. What lies beside them is.
    struct Mixture: Sendable {
        /// The field with the number of experts.
        let experts: [String]
        var shared: [Part] = []
        /// Whether `mlp_only_layers` and `decoder_sparse_step` may leave blocks without experts.
        var hasDenseBlocks = false
    }
}
