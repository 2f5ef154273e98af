import Files
import Foundation

extension MachineModel {
    /// Where the model of this machine is kept: `lorif/machine.json` in `$XDG_CACHE_HOME`, or in `~/.cache`.
    public static var cachePath: String {
        let environment = ProcessInfo.processInfo.environment
        let cache = environment["XDG_CACHE_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil }
        return (cache ?? NSHomeDirectory() + "/.cache") + "/lorif/machine.json"
    }

    /// The model kept in a file, if it is of this machine and release; nil if there is none, or it is of another, or damaged: a plan needs no
    /// model to be right.
    public static func load(fromFile path: String = cachePath) -> MachineModel? {
        guard let data = FileManager.default.contents(atPath: path), data.count < 1 << 20,
            let model = try? JSONDecoder().decode(MachineModel.self, from: data),
            model.machine == .current, model.isSound
        else { return nil }
        return model
    }

    /// Keeps the model in a file, whole or not at all; makes the folder.
    public func save(toFile path: String = cachePath) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let data = try encoder.encode(self)
        do {
            try FileManager.default.createDirectory(
                atPath: parentDirectory(of: path), withIntermediateDirectories: true)
            try data.write(to: URL(filePath: path), options: .atomic)
        } catch {
            throw EngineError.outputFailed(path: path, reason: error.localizedDescription)
        }
    }

    /// Whether every rate is a number that can be divided by.
    private var isSound: Bool {
        let rates = [memoryBytesPerSecond, cachedDiskBytesPerSecond, productFlopsPerSecond]
        guard rates.allSatisfy({ $0.isFinite && $0 > 0 }), directDiskBytesPerSecond.isFinite,
            directDiskBytesPerSecond >= 0
        else { return false }
        return costs.values.allSatisfy { points in
            let counts = points.map(\.count)
            return counts == counts.sorted() && Set(counts).count == counts.count
                && points.allSatisfy { $0.count > 0 && $0.nanoseconds.isFinite && $0.nanoseconds >= 0 }
        }
    }
}
