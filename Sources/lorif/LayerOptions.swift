import ArgumentParser
import Engine

/// How a new store keeps gradients: ranks and basis.
struct LayerOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Factor full gradients to this rank, in all layers or by name as in 'attn.*=2,mlp.*=full,*=1': the first match "
                + "wins. Without it a new store keeps them full.", valueName: "c"))
    var rank: RankChoice?
    @Option(
        help: ArgumentHelp(
            "Instead of --rank: in every layer the smallest rank that keeps this share of the energy.",
            valueName: "share"))
    var energy: Double?
    @Option(
        help: ArgumentHelp(
            "Whiten a new store by the full gradients (or second moments) in this batch.", valueName: "batch"))
    var whitenFrom: String?
    @Option(
        help: ArgumentHelp(
            "With --whiten-from: part of the mean eigenvalue that is added to every one; 0.03 unless said.",
            valueName: "epsilon"))
    var epsilon: Double?
    @Option(
        help: ArgumentHelp(
            "Whiten a new store by a basis that exists: a .basis file, an exported batch that has one beside it, or a store.",
            valueName: "file"))
    var basisFrom: String?

    /// What --rank and --energy say.
    var rankChoice: RankChoice? { rank ?? energy.map(RankChoice.energy) }

    /// What the other three say.
    var basisChoice: BasisChoice {
        if let whitenFrom { return .whitening(path: whitenFrom, epsilon: epsilon ?? BasisChoice.defaultEpsilon) }
        return basisFrom.map(BasisChoice.existing) ?? .ofBatches
    }

    func validate() throws {
        if rank != nil, energy != nil { throw ValidationError("give --rank or --energy, not both") }
        if let energy, !(energy > 0 && energy <= 1) {
            throw ValidationError("--energy must be above 0 and at most 1, not \(energy)")
        }
        if whitenFrom != nil, basisFrom != nil { throw ValidationError("give --whiten-from or --basis-from, not both") }
        if epsilon != nil, whitenFrom == nil { throw ValidationError("--epsilon goes with --whiten-from") }
        if let epsilon, !(epsilon >= 1e-12 && epsilon <= 1e6) {
            throw ValidationError("--epsilon must be from 1e-12 to 1e6, not \(epsilon)")
        }
    }
}
