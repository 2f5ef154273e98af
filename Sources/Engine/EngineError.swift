public import Checksum

/// What the engine refuses; errors of the layers below pass through unchanged.
public enum EngineError: Error, Hashable, Sendable {
    /// The batch lacks a layer of the store.
    case layerMissing(path: String, layer: String)
    /// The batch or query has a layer that the store lacks; `nearest` is the closest name.
    case layerUnknown(path: String, layer: String, nearest: String?)
    /// d1×d2 differ from the store's.
    case shapeMismatch(path: String, layer: String, expected: [Int], found: [Int])
    /// The rank differs from the store's.
    case rankMismatch(path: String, layer: String, expected: Int, found: Int)
    /// The layer is stored one way and given the other.
    case formMismatch(path: String, layer: String, expected: String, found: String)
    /// `--encoding` or `--rank` contradict the existing store.
    case settingMismatch(setting: String, expected: String, found: String)
    /// `--rank` with rows that are already factored at another rank, or larger than min(d1, d2).
    case rankNotApplicable(path: String, layer: String, reason: String)
    /// The batch's gradients are in another basis than the store's; nil: in none.
    case basisMismatch(path: String, expected: String?, found: String?)
    /// A batch in some basis is to make a new store, and the basis is not at hand.
    case basisNotGiven(path: String, digest: String)
    /// The basis lacks a layer of the store, or has it in another shape.
    case basisLayer(digest: Digest, layer: String, dimensions: [Int], found: [Int]?)
    /// A layer cannot be whitened by this batch.
    case whitening(path: String, layer: String, reason: String)
    /// A whitened gradient is outside the range of single precision.
    case whitenedOverflow(path: String, layer: String, row: Int)
    /// A row's id is taken, in the store or by an earlier row.
    case duplicateIdentifier(path: String, row: Int, identifier: String, where: String)
    /// The rows have no ids, and there is no store to number them.
    case identifiersMissing(path: String)
    /// The memory budget cannot hold what has to be held.
    case memoryTooSmall(needed: Int, given: Int)
    /// The store has no rows.
    case storeEmpty(path: String)
    /// The method needs curvature and there is none.
    case curvatureMissing(path: String, method: String)
    /// No stored curvature has that id.
    case curvatureUnknown(id: String, known: [String])
    /// Several stored curvatures have ids that begin so.
    case curvatureAmbiguous(id: String, matches: [String])
    /// A pattern of `--layers` matches no layer.
    case patternMatchesNothing(pattern: String, layers: [String])
    /// Global curvature couples all layers, so that a selection of layers needs a fit of its own.
    case selectionNeedsPerLayer(selected: Int, fitted: Int)
    /// A damping was given to a method that has none.
    case dampingNotApplicable(method: String)
    /// A score is not a finite number: the gradients are too large for single precision.
    case scoreOverflow(example: String)
    /// No example has that id; `nearest` is the closest one.
    case exampleUnknown(id: String, nearest: String?)
    /// Some ids name no live example; `nearest` is the closest one to the first.
    case examplesUnknown(count: Int, first: [String], nearest: String?)
    /// A condition or grouping names a metadata field that nothing has.
    case fieldUnknown(option: String, name: String, known: [String], nearest: String?)
    /// No example passes the condition.
    case selectionEmpty(path: String)
    /// A result file could not be written.
    case outputFailed(path: String, reason: String)
    /// A store got another generation between two questions that belong together.
    case changedMeanwhile(path: String)
    /// Runs or members that are compared or averaged share no query or example.
    case nothingInCommon(what: String, run: String)
    /// The method needs query gradients and none were given.
    case queriesMissing(method: String)
    /// A kernel was asked for that cannot give what is asked.
    case kernelImpossible(String, possible: [String])
    /// A combination of arguments that means nothing, whatever the files.
    case contradiction(String)
    /// A request that the files at hand rule out.
    case invalidRequest(String)
    /// Stopped on request; nothing was committed.
    case cancelled
}

extension EngineError: CustomStringConvertible {
    /// One line: where, expected, found.
    public var description: String {
        switch self {
        case .layerMissing(let path, let layer):
            "\(path): layer '\(layer)' of the store is missing; every batch must hold every layer of the store"
        case .layerUnknown(let path, let layer, let nearest):
            "\(path): layer '\(layer)' is not in the store" + suggestion(nearest)
        case .shapeMismatch(let path, let layer, let expected, let found):
            "\(path): layer '\(layer)': expected d1×d2 = \(product(expected)) as in the store, found \(product(found))"
        case .rankMismatch(let path, let layer, let expected, let found):
            "\(path): layer '\(layer)': expected rank \(expected) as in the store, found rank \(found)"
        case .formMismatch(let path, let layer, let expected, let found):
            "\(path): layer '\(layer)': expected \(expected) as in the store, found \(found)"
        case .settingMismatch(let setting, let expected, let found):
            "\(setting): the store has \(expected), the command says \(found)"
        case .rankNotApplicable(let path, let layer, let reason):
            "\(path): layer '\(layer)': --rank: \(reason)"
        case .basisMismatch(let path, let expected, let found):
            "\(path): expected gradients \(expected.map { "in the basis \($0) or in none" } ?? "in no basis"), found "
                + "\(found.map { "the basis \($0)" } ?? "none"): they cannot be compared"
        case .basisNotGiven(let path, let digest):
            "\(path): the gradients are in the basis \(digest) and there is no .basis file beside it; "
                + "name the file with --basis-from"
        case .basisLayer(let digest, let layer, let dimensions, let found):
            "the basis \(digest) lacks layer '\(layer)' of \(product(dimensions))"
                + (found.map { "; it has one of \(product($0))" } ?? "")
        case .whitening(let path, let layer, let reason):
            "\(path): layer '\(layer)' cannot be whitened: \(reason)"
        case .whitenedOverflow(let path, let layer, let row):
            "\(path): row \(row), layer '\(layer)': the whitened gradient is too large for single precision: it is far "
                + "larger than the sample that the basis was found on"
        case .duplicateIdentifier(let path, let row, let identifier, let place):
            "\(path): row \(row): the id '\(identifier)' is already \(place); "
                + "use '--on-duplicate skip' or '--on-duplicate replace' if that is meant"
        case .identifiersMissing(let path):
            "\(path): rows without ids can be ingested, but not packed: only a store can number them"
        case .memoryTooSmall(let needed, let given):
            "--memory: at least \((needed + 1023) >> 10)KiB are needed, \(given) bytes are allowed"
        case .storeEmpty(let path):
            "\(path): the store has no rows; add some with 'lorif ingest \(path) BATCH'"
        case .curvatureMissing(let path, let method):
            "\(path): method '\(method)' needs curvature and the store has none; run 'lorif fit \(path)' first"
        case .curvatureUnknown(let id, let known):
            "curvature '\(id)' is not in the store; it has "
                + (known.isEmpty ? "none" : known.joined(separator: ", "))
        case .curvatureAmbiguous(let id, let matches):
            "curvature '\(id)' may be any of " + matches.joined(separator: ", ") + "; give more digits"
        case .patternMatchesNothing(let pattern, let layers):
            "--layers '\(pattern)' matches none of the \(layers.count) layers (\(layers.prefix(4).joined(separator: ", "))"
                + (layers.count > 4 ? ", …)" : ")") + suggestion(nearestName(to: pattern, among: layers))
        case .selectionNeedsPerLayer(let selected, let fitted):
            "--layers selects \(selected) layers but the global curvature was fitted over all \(fitted) together; "
                + "fit with '--scope per-layer' to query a selection"
        case .dampingNotApplicable(let method):
            "method '\(method)' has no damping; leave out --damping and --relative-damping"
        case .scoreOverflow(let example):
            "the score of example '\(example)' is not a finite number: its gradients or the queries' are too large; scale them down"
        case .exampleUnknown(let id, let nearest):
            "no example has the id '\(id)'" + suggestion(nearest)
        case .examplesUnknown(let count, let first, let nearest):
            (count == 1 ? "no example has the id " : "\(count) ids name no example: ")
                + first.map { "'\($0)'" }.joined(separator: ", ") + (count > first.count ? ", …" : "")
                + suggestion(nearest)
        case .fieldUnknown(let option, let name, let known, let nearest):
            "\(option): no \(option == "--aggregate-by" ? "query" : "example") has a field '\(name)'"
                + (nearest.map { "; did you mean '\($0)'?" }
                    ?? (known.isEmpty ? "; there are none" : "; there are " + known.joined(separator: ", ")))
        case .selectionEmpty(let path):
            "\(path): no example passes the condition"
        case .outputFailed(let path, let reason):
            "\(path): \(reason)"
        case .changedMeanwhile(let path):
            "\(path): the store has changed while it was asked; ask again, or a named snapshot"
        case .nothingInCommon(let what, let run):
            "\(run): there is no \(what) that all of them have, by id"
        case .queriesMissing(let method):
            "method '\(method)' needs a file of query gradients"
        case .kernelImpossible(let name, let possible):
            "--kernel \(name) cannot answer this query on this store; possible: " + possible.joined(separator: ", ")
        case .contradiction(let text), .invalidRequest(let text):
            text
        case .cancelled:
            "stopped on request; the store is unchanged"
        }
    }

    private func suggestion(_ name: String?) -> String { name.map { "; did you mean '\($0)'?" } ?? "" }

    private func product(_ dimensions: [Int]) -> String {
        dimensions.map(String.init).joined(separator: "×")
    }
}
