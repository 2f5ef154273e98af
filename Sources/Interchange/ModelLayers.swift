import Schema

/// A linear layer of a model: its module's name and its true sizes.
public struct LinearLayer: Hashable, Sendable {
    /// As the recorder names it.
    public let name: String
    /// Numbers that go in.
    public let inputs: Int
    /// Numbers that come out.
    public let outputs: Int

    /// A layer of these sizes.
    public init(name: String, inputs: Int, outputs: Int) {
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
    }
}

/// The layers of a model that the recorder records unless told otherwise: every linear one but the output layer.
public struct ModelLayers: Sendable {
    /// `model_type` of the configuration.
    public let modelType: String
    /// In the order of the model.
    public let layers: [LinearLayer]
    /// What has no part in them, and why; one sentence each.
    public let notes: [String]
}

extension ModelConfiguration {
    /// The linear layers that a model of this configuration has.
    ///
    /// Throws `.configurationField` for a type that is not known, and where the configuration does not say how large something is.
    public func modelLayers() throws(InterchangeError) -> ModelLayers {
        guard let type = try text("model_type") else {
            throw refusal(
                "model_type", expected: "the type of a model, as in a config.json of Hugging Face", found: "none")
        }
        if let composite = ModelFamily.composites[type] {
            // Older files have the fields of the language model among their own.
            let language = try object("text_config") ?? self
            let given = language.place.isEmpty ? nil : try language.text("model_type")
            let name = given ?? composite.textType ?? type
            guard let family = ModelFamily.named(name) else { throw language.unknownType(name) }
            let found = try LayerReader(configuration: language, family: family).layers(blocks: composite.blocks)
            let place = composite.blocks.split(separator: ".").dropLast().joined(separator: ".")
            return ModelLayers(
                modelType: type, layers: found.layers,
                notes: ["the language model alone is counted: record with --layers '\(place).*'"] + found.notes)
        }
        guard let family = ModelFamily.named(type) else { throw unknownType(type) }
        let found = try LayerReader(configuration: self, family: family).layers(blocks: family.blocks)
        return ModelLayers(modelType: type, layers: found.layers, notes: found.notes)
    }

    private func unknownType(_ type: String) -> InterchangeError {
        refusal(
            "model_type",
            expected: "a type whose layers are known (\(ModelFamily.knownTypes.joined(separator: ", "))), or the model "
                + "described by --layers, --d1 and --d2",
            found: JSONText.quoted(type))
    }
}

/// Takes the sizes of a family's layers from a configuration.
private struct LayerReader {
    let configuration: ModelConfiguration
    let family: ModelFamily

    func layers(blocks: String) throws(InterchangeError) -> (layers: [LinearLayer], notes: [String]) {
        let field = configuration.present(family.fields.layers)
        let count = try configuration.requiredCount(field)
        guard count <= Limits.layerCount else {
            throw configuration.refusal(field, expected: "at most \(Limits.layerCount)", found: "\(count)")
        }
        let sizes = try Sizes(configuration: configuration, family: family)
        var layers = try embeddingLayers(hidden: sizes.hidden)
        var mixed = 0
        let experts = try family.mixture.map { mixture throws(InterchangeError) in
            try configuration.requiredCount(configuration.present(mixture.experts))
        }
        for block in 0..<count {
            var parts = family.attention
            if let mixture = family.mixture, try hasExperts(block, mixture) {
                parts += mixture.shared
                mixed += 1
            } else {
                parts += family.feedForward
            }
            for part in parts {
                layers.append(
                    LinearLayer(
                        name: "\(blocks).\(block).\(part.name)", inputs: try sizes.of(part.inputs),
                        outputs: try sizes.of(part.outputs)))
            }
        }
        guard mixed > 0, let experts else { return (layers, []) }
        return (
            layers,
            [
                "\(experts) experts in each of \(mixed) blocks are not counted: transformers 5 keeps them in one parameter, which "
                    + "the recorder passes over"
            ]
        )
    }

    private func hasExperts(_ block: Int, _ mixture: ModelFamily.Mixture) throws(InterchangeError) -> Bool {
        guard mixture.hasDenseBlocks else { return true }
        let step = try configuration.count("decoder_sparse_step") ?? 1
        return try !configuration.numbers("mlp_only_layers").contains(block) && (block + 1) % step == 0
    }

    private func embeddingLayers(hidden: Int) throws(InterchangeError) -> [LinearLayer] {
        guard let embedding = family.embedding, let width = try configuration.count(embedding.field), width != hidden
        else { return [] }
        return [
            LinearLayer(name: embedding.parts[0], inputs: hidden, outputs: width),
            LinearLayer(name: embedding.parts[1], inputs: width, outputs: hidden),
        ]
    }
}

/// The sizes that layers are made of.
private struct Sizes {
    let configuration: ModelConfiguration
    let family: ModelFamily
    let hidden: Int
    let heads: Int
    let headSize: Int
    let keyValueHeads: Int

    init(configuration: ModelConfiguration, family: ModelFamily) throws(InterchangeError) {
        self.configuration = configuration
        self.family = family
        let hiddenField = configuration.present(family.fields.hidden)
        let headField = configuration.present(family.fields.heads)
        hidden = try configuration.requiredCount(hiddenField)
        if let given = try configuration.count(headField) ?? family.absentHeads {
            heads = given
        } else {
            heads = try configuration.requiredCount(headField)
        }
        let divided = hidden.isMultiple(of: heads) ? hidden / heads : nil
        var size = divided
        if case .configured(let absent) = family.headSize {
            let other = configuration.has("head_dim") ? nil : absent
            size = try configuration.count("head_dim") ?? other ?? divided
        }
        guard let size else {
            throw configuration.refusal(
                hiddenField, expected: "a multiple of \(heads) (\(headField))", found: "\(hidden)")
        }
        headSize = size
        keyValueHeads = try Self.keyValueHeads(configuration, family, heads: heads)
    }

    private static func keyValueHeads(
        _ configuration: ModelConfiguration, _ family: ModelFamily, heads: Int
    ) throws(InterchangeError) -> Int {
        switch family.keyValueHeads {
        case .configured(let absent):
            let other = configuration.has("num_key_value_heads") ? nil : absent
            return try configuration.count("num_key_value_heads") ?? other ?? heads
        case .all: return heads
        case .falcon where try configuration.flag("new_decoder_architecture") ?? false:
            return try configuration.count("num_kv_heads") ?? heads
        case .multiQuery, .falcon: return try configuration.flag("multi_query") ?? true ? 1 : heads
        }
    }

    func of(_ size: ModelFamily.Size) throws(InterchangeError) -> Int {
        switch size {
        case .hidden: hidden
        case .one: 1
        case .queries: try product(heads, headSize)
        case .keys: try product(keyValueHeads, headSize)
        case .queriesKeysValues: try product(heads + 2 * keyValueHeads, headSize)
        case .feedForward: try feedForward()
        case .twiceFeedForward: try product(2, feedForward())
        case .sharedExpert: try configuration.requiredCount("shared_expert_intermediate_size")
        }
    }

    private func feedForward() throws(InterchangeError) -> Int {
        let field = configuration.present(family.fields.feedForward)
        if let given = try configuration.count(field) { return given }
        guard let factor = family.feedForwardFactor else { return try configuration.requiredCount(field) }
        return try product(factor, hidden)
    }

    /// Counts are at most 2⁴⁰ each, so that a product may be too large for a number.
    private func product(_ count: Int, _ size: Int) throws(InterchangeError) -> Int {
        let (result, overflow) = count.multipliedReportingOverflow(by: size)
        guard !overflow, result <= Limits.dimension else {
            throw configuration.refusal(
                configuration.present(family.fields.hidden),
                expected: "layers of at most \(Limits.dimension) numbers on a side", found: "\(count) times \(size)")
        }
        return result
    }
}

extension ModelConfiguration {
    /// The first of some keys that is there; if none is, the first.
    fileprivate func present(_ keys: [String]) -> String { keys.first { has($0) } ?? keys.first ?? "" }
}
