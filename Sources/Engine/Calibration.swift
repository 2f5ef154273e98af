import Foundation
import Kernels
import Schema

/// Measures what this machine can do, in some seconds, with the kernels and reads that queries use.
///
/// `folder` is where stores are or will be: a file of 256 MiB is written there, read and removed. Run it while nothing else does.
public func calibrateMachine(
    folder: String, workers: Int = availableProcessorCount(),
    control: OperationControl = OperationControl()
) throws -> MachineModel {
    let calibration = KernelCalibration(workers: workers)
    var costs: [String: [MachineModel.Point]] = [:]
    for (index, encoding) in Encoding.allCases.enumerated() {
        try control.cancellation.check()
        control.report(
            ProgressUpdate(
                stage: "kernels", completedCount: index, totalCount: Encoding.allCases.count, byteCount: 0,
                unit: .share))
        costs.merge(calibration.costs(of: encoding)) { $1 }
    }
    costs.merge(calibration.productCosts()) { $1 }
    costs.merge(try calibration.queryCosts()) { $1 }
    try control.cancellation.check()
    control.report(ProgressUpdate(stage: "disk", completedCount: 0, totalCount: nil, byteCount: 0))
    let disk = try DiskCalibration(folder: folder, processorCount: workers, cancellation: control.cancellation)
    costs[Work.mapping.name] = [MachineModel.Point(1, disk.mappingNanosecondsPerByte)]
    return MachineModel(
        machine: .current, memoryBytesPerSecond: calibration.memoryBytesPerSecond(),
        cachedDiskBytesPerSecond: disk.cachedBytesPerSecond, directDiskBytesPerSecond: disk.directBytesPerSecond,
        productFlopsPerSecond: calibration.productFlopsPerSecond(), costs: costs)
}

extension MachineModel.Machine {
    /// This one.
    public static var current: MachineModel.Machine {
        MachineModel.Machine(
            processor: processorName(), coreCount: availableProcessorCount(), kernelTier: chosenKernelTierName,
            version: lorifRelease)
    }

    private static func processorName() -> String {
        let lines = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n") ?? []
        let line = lines.first { $0.hasPrefix("model name") || $0.hasPrefix("CPU part") }
        let name = line?.split(separator: ":", maxSplits: 1).last.map {
            $0.trimmingCharacters(in: .whitespaces)
        }
        return name ?? "unknown"
    }
}
