"""Knowledge distillation: teachers, students, and the stages that train them."""
