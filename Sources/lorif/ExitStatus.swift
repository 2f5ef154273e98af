import ArgumentParser
import Curvature
import Engine
import Files
import Glibc
import Interchange
import Store

/// The documented exit codes.
enum ExitStatus: Int32 {
    case success = 0
    /// The answer is "no": verify found damage.
    case no = 1
    case usage = 2
    /// A file or request that is not acceptable; nothing was changed.
    case inputRefused = 3
    /// A command met damage in the store.
    case storeDamaged = 4
    /// Disk, permission, memory, another writer.
    case environment = 5
    /// Ctrl-C, as shells report it.
    case interrupted = 130
}

/// Ends the process at once.
func leave(_ status: ExitStatus) -> Never {
    exit(status.rawValue)
}

/// A failure of the world or the input, with the exit code that tells which.
struct CommandFailure: Error {
    let code: ExitStatus
    let message: String

    init(code: ExitStatus, message: String) {
        self.code = code
        self.message = message
    }

    /// Classifies an error of the layers below; nil for the argument parser's own.
    init?(_ error: any Error) {
        switch error {
        case let failure as CommandFailure:
            self = failure
        case let error as EngineError:
            let code: ExitStatus =
                switch error {
                case .cancelled: .interrupted
                case .outputFailed: .environment
                case .contradiction, .dampingNotApplicable: .usage
                default: .inputRefused
                }
            self.init(code: code, message: error.description)
        case let error as CoordinatesUnfinished:
            guard let cause = CommandFailure(error.cause) else { return nil }
            self.init(
                code: cause.code,
                message: "\(cause.message); the curvature \(error.curvature) is kept, and the same command writes the "
                    + "coordinates that are missing")
        case let error as RowFilterError:
            self.init(code: .usage, message: error.description)
        case let error as InterchangeError:
            self.init(code: error.isEnvironmental ? .environment : .inputRefused, message: error.description)
        case let error as StoreError:
            let code: ExitStatus =
                switch error.category {
                case .refused: .inputRefused
                case .damaged: .storeDamaged
                case .environment: .environment
                }
            self.init(code: code, message: error.description)
        case let error as CurvatureError:
            self.init(code: .inputRefused, message: error.description)
        case let error as FileError:
            self.init(code: .environment, message: error.description)
        default:
            return nil
        }
    }
}
