<?php // An Activity in PHP, for a pool of the worker runtime: no SDK, and no Worker to write.

require __DIR__ . '/temporal_handler.php';

use TemporalHandler\Task;

use function TemporalHandler\activity;
use function TemporalHandler\run;

activity('Greet', fn (Task $task, string $name) => "php greets $name");

run();
